"""The processes of one command: who started whom, who is told of a death, and how all leave.

Lightning's own launcher (`trainer.devices: 2` in one command) makes the first process the parent of
the other ranks. Its observer of them ends the parent by SIGKILL, which a container's first process
does not even receive, and nothing ends the others when the parent is killed. Under srun and
torchrun there are no such children and only `leave` matters.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

_MARK = "LIGHTNING_RAD_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_AGREED = (85, 130)  # what all ranks leave with together; the parent alone says it

_children: list[Children] = []


def mark() -> None:
    """Let the processes that Lightning is about to start know their launcher."""
    if launcher() is None:
        os.environ[_MARK] = str(os.getpid())


def unmark() -> None:
    """Whatever else this process starts has no launcher."""
    if launcher() is None:
        os.environ.pop(_MARK, None)


def launcher() -> int | None:
    """The process that started this rank, where that was a rank itself."""
    pid = os.environ.get(_MARK)
    return int(pid) if pid and int(pid) != os.getpid() and os.environ.get("LOCAL_RANK") else None


def follow() -> None:
    """Die with the launcher: the kernel sends SIGKILL, which also ends a wait for a lost peer."""
    parent = launcher()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Children(threading.Thread):
    """Watches the ranks that this process started; the death of one is the death of all.

    children: rank 1, 2, ... of this node. The list is emptied, and so Lightning's observer ends.
    """

    def __init__(self, children: list[subprocess.Popen[bytes]], period: float = 0.5) -> None:
        super().__init__(daemon=True, name="children")
        self._children, self._period = list(children), period
        children.clear()
        self._told: set[int] = set()
        self._over = threading.Event()
        _children.append(self)

    def run(self) -> None:
        """Look; where one failed, say so, leave the others time for their own last words, end."""
        while not self._over.wait(self._period):
            for local_rank, child in enumerate(self._children, start=1):
                status = child.poll()
                if status:
                    self._tell(local_rank, status)
                    if not self._over.wait(3):
                        leave(status if status > 0 else 1, wait=0)
                    return

    def _tell(self, local_rank: int, status: int) -> None:
        if local_rank not in self._told:
            self._told.add(local_rank)
            text = f"signal {signal.Signals(-status).name}" if status < 0 else status
            say(f"local rank {local_rank} on {socket.gethostname()}: ended with {text}")

    def finish(self, wait: float) -> int:
        """Wait for the rest, end who is still there, name who failed: the status of the first."""
        failed = 0
        self._over.set()
        deadline = time.monotonic() + wait
        for local_rank, child in enumerate(self._children, start=1):
            try:
                status = child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                status = -signal.SIGKILL
            if status:
                self._tell(local_rank, status)
                failed = failed or (status if status > 0 else 128 - status)
        return failed


def watch(children: Sequence[subprocess.Popen[bytes]] | None) -> None:
    """Watch the ranks that this process started, if it did."""
    if isinstance(children, list) and children:
        Children(children).start()


def finish(wait: float = 60.0) -> int:
    """At a run's ordinary end: wait for the ranks that this process started; 0 if all went well."""
    failed = 0
    while _children:
        failed = _children.pop().finish(wait) or failed
    return failed


def say(line: str) -> None:
    """One line on standard error, at once and whole."""
    sys.stdout.flush()
    sys.stderr.write(line.rstrip("\n") + "\n")
    sys.stderr.flush()


def leave(status: int, wait: float = 5.0) -> NoReturn:
    """End this process now: no destructor of a process group may hang, no finaliser may linger.

    A rank that another one started ends with 0 where all leave by agreement: its launcher speaks
    for it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if launcher() is not None and status in _AGREED:
        status = 0
    failed = finish(wait)
    os._exit(status or failed)
