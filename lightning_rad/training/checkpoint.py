"""When checkpoints are written: every so many steps, and at the end."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, `last.ckpt`, the newest.

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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the steps since the last multiple, too."""
        super().on_train_end(trainer, pl_module)
        if trainer.global_step != self._last_global_step_saved:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
