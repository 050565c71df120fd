"""What a rank says before it ends because something went wrong, its own fault or another's."""

from __future__ import annotations

import re
import socket
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.collectives import rank
from lightning_rad.data.reader import TooManyBadSamplesError
from lightning_rad.objectives.loss_guard import LossDivergedError
from lightning_rad.training import launch

_CLEANING = 45.0
"""Seconds for what Lightning and the callbacks do after an error; a lost peer may hang it.

More than `Checkpoints` gives a save that is under way."""

_NOTE = "in training, at step "
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Socket (closed|Timeout)|Connection refused|"
    r"Timed out waiting \d+ms for (recv|send)|timeout caused pair closure|"
    r"nccl(Remote|System)Error|NCCL communicator was aborted|[Ww]atchdog caught collective"
)


class LastWords(Callback):
    """Notes at which step of training an error fell; over several ranks, bounds the cleaning up."""

    def __init__(self) -> None:
        self._begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What goes wrong before is the same on all ranks, a setting or a file."""
        self._begun = trainer.world_size > 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Alone, what goes wrong after the first batch is no setting any more."""
        self._begun = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The note makes `told` speak; the timer ends a process that does not get there."""
        if not self._begun or not isinstance(exception, Exception):
            return
        if isinstance(exception, LossDivergedError | TooManyBadSamplesError):
            return  # these are told in one line, and are no accident
        exception.add_note(f"{_NOTE}{trainer.global_step}")
        if trainer.world_size == 1:
            return
        timer = threading.Timer(_CLEANING, _give_up, (exception,))
        timer.daemon = True
        timer.start()


def told(error: BaseException) -> bool:
    """Say, where it happened in training, who fell and how; else False.

    The loss of another rank is one line; what this rank did wrong keeps its traceback.
    """
    noted = next((e for e in _chain(error) if _step(e) is not None), None)
    if noted is None:
        return False
    launch.say(_words(noted))
    return True


def _words(error: BaseException) -> str:
    if _lost(error):
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"{who()}: lost another rank at step {_step(error)}: {first}"
    trace = "".join(traceback.format_exception(error))
    return f"{who()}: {type(error).__name__} at step {_step(error)}\n{trace}"


def who() -> str:
    """This rank and its host, as a message begins."""
    return f"rank {rank()} on {socket.gethostname()}"


def _give_up(error: BaseException) -> None:
    launch.say(_words(error))
    launch.leave(1, wait=0)


def _lost(error: BaseException) -> bool:
    kinds: tuple[Any, ...] = (dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _step(error: BaseException) -> str | None:
    notes = getattr(error, "__notes__", ())
    return next((n.removeprefix(_NOTE) for n in notes if n.startswith(_NOTE)), None)
