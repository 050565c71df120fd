"""A signal ends a run between two optimiser steps, with its checkpoint, on all ranks at once.

Lightning 2.6 saves inside the signal handler, which deadlocks where ranks are out of step (its
issue 21406), and it broadcasts and reads back a flag before every batch; both are switched off.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.training import launch
from lightning_rad.training.agreement import Agreement, Flag

REQUEUE = 85
INTERRUPTED = 130
_MEETING = 120.0  # seconds: how much later than this rank another may be done with saving


class Stop(Callback):
    """Stops at a step that all ranks agree on, saves, and leaves with a status that says why.

    SIGTERM and SIGUSR1 (a time limit, a preemption) leave with 85: put the job into the queue again
    and give `--ckpt_path last`. Ctrl-C leaves with 130, a second one at once. Before the first step
    there is nothing to save: the process ends at once with the same status. Validation ends after
    the batch that all ranks agree on, and goes unmeasured. Needs `Agreement` among the callbacks,
    before it.

    Args:
        signals: Names of the signals that leave with 85.
    """

    def __init__(self, signals: Sequence[str] = ("SIGTERM", "SIGUSR1")) -> None:
        known = {s.name: s for s in signal.Signals} if signals else {}
        never = {"SIGINT", "SIGKILL", "SIGSTOP"}
        for name in signals:
            if name not in known or name in never:
                raise ValueError(f"stop.signals: {name} is not a signal such as SIGTERM, SIGUSR1")
        self.reason: signal.Signals | None = None
        self._signals = [signal.SIGINT, *(known[name] for name in signals)]
        self._agreement: Agreement | None = None
        self._begun = self._interrupted = False
        self._before: dict[signal.Signals, Any] = {}
        self._ear: _Ear | None = None

    @property
    def status(self) -> int | None:
        """What the process is to end with; None where nobody stopped the run."""
        if self.reason is None:
            return None
        return INTERRUPTED if self.reason == signal.SIGINT else REQUEUE

    def watch(self) -> None:
        """Take the signals; `release` gives them back. Only the main thread can."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            for number in self._signals:
                self._before[number] = signal.signal(number, self._note)
            if not self._begun:
                self._ear = _Ear(self._heard)
                self._ear.start()

    def release(self) -> None:
        """Give the signals back."""
        self._need_no_ear()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _need_no_ear(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _heard(self, number: int) -> None:
        """End a process that has nothing to save."""
        if number in self._signals and not self._begun:
            os._exit(INTERRUPTED if number == signal.SIGINT else REQUEUE)

    def _note(self, number: int, _frame: Any) -> None:
        """The handler: sets a flag, or ends a process that has nothing to save."""
        self._heard(number)
        interrupt = number == signal.SIGINT
        if interrupt and self._interrupted:
            os._exit(INTERRUPTED)
        self._interrupted |= interrupt
        assert self._agreement is not None
        self._agreement.ask(Flag.STOP, _vote(signal.Signals(number)))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Switch Lightning's handling of signals off, and watch the ranks it started."""
        launch.unmark()
        # Lightning 2.6.6: the first registers handlers that broadcast or save, the second is a
        # broadcast and a read-back before every batch
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
        if stage != "fit":
            return
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
        launch.watch(getattr(trainer.strategy.launcher, "procs", None))
        self._agreement = Agreement.of(trainer)
        if self._agreement is None:
            raise ValueError("Stop needs the callback Agreement beside it")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal is noted and agreed upon."""
        self._begun = True
        self._need_no_ear()
        self.watch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Where all agreed, which is between two steps, this one is the last.

        Checkpoint callbacks come after this one, and save.
        """
        self._stop(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Where all agreed, this batch is the last one of the validation.

        Raises:
            StopIteration: which Lightning's evaluation loop takes for the end of the data.
        """
        if self._begun and self._stop(trainer):
            raise StopIteration

    def _stop(self, trainer: Trainer) -> bool:
        assert self._agreement is not None
        vote = self._agreement.take(Flag.STOP)
        if vote and self.reason is None:
            self.reason = _reason(vote)
            trainer.should_stop = True
            trainer.limit_val_batches = 0
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
        return bool(vote)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back, unless the process is about to leave anyway."""
        if self.reason is None or trainer.world_size == 1:
            self.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """An error has its own way out."""
        self.release()

    def leave(self, trainer: Trainer) -> None:
        """After the fit: where it was stopped, say so, and leave together with the other ranks."""
        if self.status is None:
            if failed := launch.finish():
                launch.leave(failed)
            return
        if trainer.is_global_zero:
            sys.stdout.write(
                f"stopped at step {trainer.global_step} after {_name(self.reason)}; "
                "the same command with --ckpt_path last goes on\n"
            )
        if trainer.world_size == 1:
            sys.exit(self.status)
        _finish_loggers(trainer)
        sys.stdout.flush()
        assert self._agreement is not None
        self._agreement.meet(_MEETING)  # who leaves first gets the rest killed (srun, torchrun)
        launch.leave(self.status)


class _Ear(threading.Thread):
    """Hears signals while the main thread waits for other ranks in C++, where no handler can run.

    Else a rank that is still starting dies of the signal, the one that waits for it does not see
    its own, and Lightning's observer of its children kills it.
    """

    def __init__(self, heard: Callable[[int], None]) -> None:
        super().__init__(daemon=True, name="signals")
        self._heard = heard
        self._reads, self._writes = socket.socketpair()
        self._writes.setblocking(False)
        signal.set_wakeup_fd(self._writes.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        with self._reads:
            while number := self._reads.recv(1):
                self._heard(number[0])

    def close(self) -> None:
        """Hear no more; from the main thread."""
        signal.set_wakeup_fd(-1)
        self._writes.close()


def _finish_loggers(trainer: Trainer) -> None:
    """What a service's client still has to send: leaving skips its own exit handler."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        finish = getattr(getattr(logger, "experiment", None), "finish", None)
        if callable(finish):
            finish()


def _nothing() -> None:
    pass


def _vote(number: signal.Signals) -> int:
    return 1 if number == signal.SIGINT else 100 + number  # a requeue outvotes an interrupt


def _reason(vote: int) -> signal.Signals:
    return signal.SIGINT if vote == 1 else signal.Signals(vote - 100)


def _name(reason: signal.Signals | None) -> str:
    return "Ctrl-C" if reason in (None, signal.SIGINT) else reason.name
