"""How fast a run goes, and how long it waits for data."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs images/s over all ranks, seconds an optimiser step, and the share of time without data.

    Averages over the optimiser steps between two logged ones (`trainer.log_every_n_steps`);
    validation is not counted. Waiting is the time that the training thread spends in the data
    module's loader (`waited` seconds so far). No device synchronisation: on a GPU the averages are
    right because logging waits for the device, single steps are not measured.

    Args:
        bar: Show the three on the progress bar.
    """

    def __init__(self, bar: bool = True) -> None:
        self._bar = bar

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave validation out."""
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images; log every few optimiser steps."""
        self._images += len(batch.unit) * trainer.world_size
        steps = trainer.global_step - self._step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every > 0 and trainer.global_step % every == 0
        if not due or steps == 0:
            return
        passed = time.perf_counter() - self._mark
        images, step = self._images / passed, passed / steps
        waited = (_waited(trainer) - self._waited) / passed
        pl_module.log_dict(
            {
                "throughput/images_per_s": images,
                "throughput/step_s": step,
                "throughput/data_wait": waited,
            }
        )
        bar = {"img/s": images, "s/step": step, "wait": waited} if self._bar else {}
        pl_module.log_dict(bar, prog_bar=True, logger=False)
        self._restart(trainer)

    def _restart(self, trainer: Trainer) -> None:
        self._mark, self._step, self._images = time.perf_counter(), trainer.global_step, 0
        self._waited = _waited(trainer)


def _waited(trainer: Trainer) -> float:
    return float(getattr(trainer.datamodule, "waited", 0.0))  # type: ignore[attr-defined]
