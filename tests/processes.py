"""The command line in processes of their own, with ranks that are slow, and signals to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

ROOT = Path(__file__).parents[1]


class Pace(Callback):
    """Slows each rank down as told, and writes where it is to `<run>/pace-RANK.txt`.

    Args:
        seconds: How long each rank sleeps before a micro-batch; one entry a rank.
        in_validation: How long every rank sleeps before a validation batch.
    """

    def __init__(self, seconds: Sequence[float] = (), in_validation: float = 0.0) -> None:
        self._seconds, self._in_validation = list(seconds), in_validation

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self._say(trainer, f"{os.getpid()} train {trainer.global_step} {batch_idx}")
        time.sleep(self._seconds[trainer.global_rank] if self._seconds else 0)

    def on_validation_batch_start(self, trainer: Any, *args: Any) -> None:
        self._say(trainer, f"{os.getpid()} validation {trainer.global_step} {args[2]}")
        time.sleep(self._in_validation)

    @staticmethod
    def _say(trainer: Any, text: str) -> None:
        path = Path(trainer.default_root_dir) / f"pace-{trainer.global_rank}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text + "\n")


def reach(folder: Path, text: str, rank: int = 0, timeout: float = 120) -> None:
    """Wait until a rank is at `train STEP BATCH` or `validation STEP BATCH`, by its `Pace`."""
    deadline = time.monotonic() + timeout
    path = folder / f"pace-{rank}.txt"
    while not any(line.split(" ", 1)[1].startswith(text) for line in _lines(path)):
        assert time.monotonic() < deadline, f"did not reach '{text}'"
        time.sleep(0.01)


class Command:
    """`lightning-rad ARGUMENTS` in a process group of its own; use it in a `with` statement."""

    def __init__(self, run: Path, *arguments: str) -> None:
        self.run = run
        self._before = {path: len(_lines(path)) for path in run.glob("pace-*.txt")}
        self._log = run.parent / f"{run.name}-{time.monotonic_ns()}.txt"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightning_rad", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if _exists(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        """Standard output and error of all ranks so far."""
        return self._log.read_text()

    def lines(self, rank: int) -> list[str]:
        """What `Pace` wrote on a rank since this command began."""
        path = self.run / f"pace-{rank}.txt"
        return _lines(path)[self._before.get(path, 0) :]

    def pid(self, rank: int) -> int:
        """The process of a rank, once it has begun a step."""
        return int(self.lines(rank)[0].split()[0])

    def reach(self, text: str, rank: int = 0, timeout: float = 120) -> None:
        """Wait until a rank is at `train STEP BATCH` or `validation STEP BATCH`."""
        deadline = time.monotonic() + timeout
        while not any(line.split(" ", 1)[1].startswith(text) for line in self.lines(rank)):
            assert self.process.poll() is None, f"ended before '{text}':\n{self.said}"
            assert time.monotonic() < deadline, f"did not reach '{text}':\n{self.said}"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """To the first process alone."""
        os.kill(self.process.pid, number)

    def signal_all(self, number: int) -> None:
        """To all processes, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self, timeout: float = 120) -> int:
        """Wait for the first process and the rest of its group; the first one's status."""
        deadline = time.monotonic() + timeout
        status = self.process.wait(timeout)
        while _exists(self.process.pid):
            assert time.monotonic() < deadline, f"others outlived the first process:\n{self.said}"
            time.sleep(0.02)
        return status


def _lines(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
