"""When checkpoints are written: every so many steps or minutes, when asked, and at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from lightning_rad.checkpoints import CheckpointError, Keep, named
from lightning_rad.collectives import broadcast_object, world_size
from lightning_rad.objectives.loss_guard import LossDivergedError
from lightning_rad.training.checkpoint_io import FolderCheckpointIO

_ASK_EVERY = 10
"""Optimiser steps between two looks at rank 0's clock, where no one else carries it."""


class Checkpoints(Checkpoint):
    """Keeps the newest checkpoints as `step-XXXXXXXX/`, always taken between two optimiser steps.

    What goes wrong with one of them (a full disk) is a warning, and the next is tried in its turn;
    what goes wrong with the one at the end raises. There is none at the step a run started from.

    Minutes are counted by rank 0's clock, and all ranks save at the same step: `Agreement`, where
    it is among the callbacks, asks `due` and calls `request`, and sets `agreed`; else rank 0's
    clock is read by all every ten steps.

    Args:
        dirpath: Folder; `<run>/checkpoints` from the command line.
        every_n_train_steps: Optimiser steps between two checkpoints.
        every_minutes: Minutes from one checkpoint until the next at the latest; null: any number.
        keep: How many of the newest stay; one may turn out damaged.
        keep_every_n_steps: Checkpoints at multiples of it stay for ever; null: none do.
        in_background: Train on while a checkpoint is written; false waits until it is on disk.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        *,
        every_n_train_steps: int = 500,
        every_minutes: float | None = None,
        keep: int = 2,
        keep_every_n_steps: int | None = None,
        in_background: bool = True,
    ) -> None:
        if every_n_train_steps < 1:
            raise ValueError(
                f"checkpoint.every_n_train_steps must be at least 1, got {every_n_train_steps}"
            )
        if every_minutes is not None and not every_minutes > 0:
            raise ValueError(f"checkpoint.every_minutes must be above 0, got {every_minutes}")
        self._folder = Path(dirpath) if dirpath is not None else None
        self._steps = every_n_train_steps
        self._seconds = None if every_minutes is None else 60 * every_minutes
        self._keep = Keep(keep, keep_every_n_steps)
        self._in_background = in_background
        self.agreed = False
        self._requested = False
        self._saved = 0
        self._saved_at = 0.0

    def due(self) -> bool:
        """Whether this process's clock asks for a checkpoint."""
        return self._seconds is not None and time.monotonic() - self._saved_at >= self._seconds

    def request(self) -> None:
        """Save after the present optimiser step; to be called on all ranks at the same step."""
        self._requested = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder; refuse a trainer that writes another kind of checkpoint."""
        if stage != "fit":
            return
        if not isinstance(trainer.strategy.checkpoint_io, FolderCheckpointIO):
            raise ValueError(
                "Checkpoints needs trainer.plugins to hold "
                "lightning_rad.training.checkpoint_io.FolderCheckpointIO"
            )
        if self._folder is None:
            self._folder = Path(trainer.default_root_dir) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run starts from is saved already."""
        self._saved, self._saved_at = trainer.global_step, time.monotonic()
        self._requested = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; gradients that are being accumulated would be lost."""
        step = trainer.global_step
        if trainer.fast_dev_run or step == self._saved or _accumulating(trainer):  # type: ignore[attr-defined]
            return
        if step % self._steps == 0 or self._requested or self._clock_says(step):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was asked for meanwhile: the end of training would count the epoch as whole."""
        if self._requested and trainer.global_step != self._saved:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the steps since the last one, too; back when all is on disk."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        error = self._finished(trainer)
        new = trainer.global_step != self._saved or error is not None
        if new and not _accumulating(trainer):
            self._save(trainer)
            error = self._finished(trainer)
        if error is not None:
            raise error

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let a save that is under way end, unless it waits for a rank that is gone."""
        if not isinstance(trainer.strategy.checkpoint_io, FolderCheckpointIO):
            return
        alike = isinstance(exception, LossDivergedError)  # on all ranks, and none is gone
        _io(trainer).writer.wait(timeout=None if alike else 30)
        if alike:  # who leaves first gets the rest killed
            trainer.strategy.barrier()

    def _clock_says(self, step: int) -> bool:
        """Whether rank 0's clock asks; the same on all ranks."""
        if self._seconds is None or self.agreed:
            return False
        if world_size() == 1:
            return self.due()
        return step % _ASK_EVERY == 0 and broadcast_object(self.due())

    def _save(self, trainer: Trainer) -> None:
        assert self._folder is not None
        step = trainer.global_step
        trainer.save_checkpoint(self._folder / named(step), False, storage_options=self._keep)
        if not self._in_background:
            _io(trainer).writer.wait()
        self._saved, self._saved_at, self._requested = step, time.monotonic(), False

    def _finished(self, trainer: Trainer) -> CheckpointError | None:
        """Wait for what is being written; what went wrong with it, known to all ranks."""
        error = _io(trainer).writer.wait()
        text = broadcast_object(None if error is None else str(error))
        return None if text is None else CheckpointError(text)


def _io(trainer: Trainer) -> FolderCheckpointIO:
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, FolderCheckpointIO)
    return io


def _accumulating(trainer: Trainer) -> bool:
    return trainer.fit_loop._should_accumulate()
