"""When checkpoints are written: every so many steps, and at the end."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, `last.ckpt`, the newest, always taken between two optimiser steps.

    Args:
        dirpath: Folder; `<run>/checkpoints` from the command line.
        every_n_train_steps: Optimiser steps between two checkpoints.
    """

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int = 500) -> None:
        if every_n_train_steps < 1:
            raise ValueError(
                f"checkpoint.every_n_train_steps must be at least 1, got {every_n_train_steps}"
            )
        super().__init__(
            dirpath=dirpath,
            every_n_train_steps=every_n_train_steps,
            save_last=True,
            save_top_k=0,
            enable_version_counter=False,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run starts from is saved already."""
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save every so many steps; gradients that are being accumulated would be lost."""
        if not trainer.fit_loop._should_accumulate():
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the steps since the last multiple, too."""
        new = trainer.global_step != self._last_global_step_saved
        if new and not trainer.fast_dev_run and not trainer.fit_loop._should_accumulate():  # type: ignore[attr-defined]
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
