"""A run that hangs says where, and ends: no silent wait for a rank, a disk or a network."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.collectives import Board, rank, world_size
from lightning_rad.training import launch
from lightning_rad.training.pulse import Pulse, behind, place_of, put_up, read

HUNG = 87
_SHOWN = 8
_DISK = 5.0  # seconds for writing the stacks down
_FIRST = 2  # micro-batches that may compile, tune and warm up


class Watchdog(Callback):
    """Ends the process with 87 when its own rank has made no progress for too long.

    A beat is the start or the end of a batch, and the start of its backward pass. Without one for
    `limit_minutes` every rank writes the stacks of its threads to `<run>/hang-rank-R.txt` and says
    which ranks keep the others waiting, on which hosts, at which step. What may rightly take long
    has a limit of its own: set-up, the first batches (compilation), validation, the writing of a
    checkpoint, the end. A thread watches, so it sees a wait in C++ too, unless that holds the
    interpreter's lock.

    Args:
        limit_minutes: Minutes without progress in training; null: no watchdog.
        slow_limit_minutes: The same for what may take long; null: no limit there. It is below the
            strategy's `timeout_minutes` (30), after which ranks that wait in a collective end by
            an error that does not say for whom: to allow more, raise both.
    """

    def __init__(
        self, limit_minutes: float | None = 10.0, slow_limit_minutes: float | None = 25.0
    ) -> None:
        for name, minutes in (("limit", limit_minutes), ("slow_limit", slow_limit_minutes)):
            if minutes is not None and not minutes > 0:
                raise ValueError(f"watchdog.{name}_minutes must be above 0 or null, got {minutes}")
        self._limit = limit_minutes
        self._slow = slow_limit_minutes
        self._thread: _Watcher | None = None
        self._seen = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, once the ranks have met."""
        if self._limit is None or stage != "fit":
            return
        slow = None if self._slow is None else 60 * self._slow
        folder = Path(trainer.default_root_dir)
        self._thread, self._seen = _Watcher(60 * self._limit, slow, folder), 0
        self._thread.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """There is data; from the third batch on a step is quick."""
        self._beat(trainer, slow=self._seen < _FIRST)
        self._seen += 1

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """The forward pass is done."""
        self._beat(trainer, slow=self._seen <= _FIRST)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done."""
        self._beat(trainer, slow=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Slow until the next batch of training: the probe is fitted at its end."""
        self._beat(trainer, slow=True)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Progress in validation."""
        self._beat(trainer, slow=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measured."""
        self._beat(trainer, slow=True)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Slow until the next batch of training."""
        self._beat(trainer, slow=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last checkpoint is to come."""
        self._beat(trainer, slow=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """No longer watch."""
        self._end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """An error has a time limit of its own; but a peer that left may have ended a hang."""
        if self._thread is not None and self._thread.hanging:
            self._thread.join(60)  # it ends the process
        self._end()

    def _beat(self, trainer: Trainer, *, slow: bool) -> None:
        if self._thread is not None:
            self._thread.beat(trainer.global_step, slow=slow)

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.over.set()
            self._thread = None


class _Watcher(threading.Thread):
    """Looks at this rank's progress, and ends the process when it stands still."""

    def __init__(self, limit: float, slow: float | None, folder: Path) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.over = threading.Event()
        self.hanging = False
        self._limit, self._slow_limit, self._folder = limit, slow, folder
        self._period = min(5.0, limit / 4)
        self._board, self._host = Board("pulse"), socket.gethostname()
        self._main = threading.main_thread().ident or 0
        self._step = self._beats = 0
        self._mark, self._slow = time.monotonic(), True

    def beat(self, step: int, *, slow: bool) -> None:
        """There is progress; slow: what comes next may take long."""
        self._step, self._slow, self._mark = step, slow, time.monotonic()
        self._beats += 1

    def run(self) -> None:
        """Look, and end with 87; another thread posts, for the store itself may hang."""
        threading.Thread(target=self._post, daemon=True, name="pulse").start()
        while not self.over.wait(self._period / 2):
            limit = self._slow_limit if self._slow else self._limit
            still = time.monotonic() - self._mark
            if limit is not None and still > limit:
                self.hanging = True
                self._hang(still)

    def _post(self) -> None:
        posts = 0
        while not self.over.is_set():
            posts += 1
            place, waiting = place_of(self._main)
            mine = Pulse(rank(), self._host, self._step, self._beats, posts, place, waiting)
            put_up(self._board, mine)
            self.over.wait(self._period)

    def _hang(self, still: float) -> None:
        stacks = self._folder / f"hang-rank-{rank()}.txt"
        # the disk may be what hangs: nothing here waits for it
        writing = threading.Thread(target=_dump, args=(stacks,), daemon=True)
        writing.start()
        writing.join(_DISK)
        place, _ = place_of(self._main)
        launch.say(
            f"rank {rank()} on {self._host}: no progress for {still:.0f} s at step {self._step}, "
            f"in {place}; stacks in {stacks}; {_told(self._late())}"
        )
        time.sleep(2 * self._period)  # who leaves first gets the rest killed: let them say theirs
        parent = launch.launcher()
        if parent == os.getppid():  # it may be stopped, and then never sees that this one left
            time.sleep(2 * self._period)
            os.kill(parent, signal.SIGKILL)
        launch.leave(HUNG, wait=1.0)

    def _late(self) -> list[str] | None:
        before = read(self._board)
        if before is None:
            return None
        time.sleep(3 * self._period)  # time for a post, and for the others to notice, too
        now = read(self._board)
        return None if now is None else behind(before, now)


def _dump(stacks: Path) -> None:
    """The stacks of all threads, to a file or, where it cannot be written, to standard error."""
    try:
        stacks.parent.mkdir(parents=True, exist_ok=True)
        with stacks.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
    except OSError:
        faulthandler.dump_traceback(all_threads=True)


def _told(late: list[str] | None) -> str:
    if late is None:
        alone = "there are no others to ask"
        return alone if world_size() == 1 else "rank 0 is behind: its store does not answer"
    more = [f"and {len(late) - _SHOWN} more"] if len(late) > _SHOWN else []
    return "behind: " + "; ".join(late[:_SHOWN] + more)
