"""How often focus views found no window or rectangle that their rule accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class FocusRate(Callback):
    """Logs what share of the focus views had to make do, between two logged steps.

    data/focus_crop_exhausted and data/focus_cutout_exhausted: no window, no rectangle, was accepted
    and the last one taken; data/focus_blank: nobody had looked at the image, as far as is known.
    From the data module's counters (`focus`), of rank 0's rows; silent where no view is focused.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here."""
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every few optimiser steps."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every > 0 and trainer.global_step % every == 0
        if not due or trainer.global_step == self._step:
            return
        new = {name: count - self._counts.get(name, 0) for name, count in _counts(trainer).items()}
        if drawn := new.pop("drawn", 0):
            shares = {f"data/focus_{name}": count / drawn for name, count in new.items()}
            pl_module.log_dict(shares)
        self._restart(trainer)

    def _restart(self, trainer: Trainer) -> None:
        self._step, self._counts = trainer.global_step, dict(_counts(trainer))


def _counts(trainer: Trainer) -> Mapping[str, int]:
    counts: Mapping[str, int] = getattr(trainer.datamodule, "focus", {})  # type: ignore[attr-defined]
    return counts
