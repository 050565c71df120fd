"""How fast a run goes, and how long it waits for data."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs images/s over all ranks, seconds a step and the share of time spent waiting for data.

    Averages over the steps between two logged ones (`trainer.log_every_n_steps`); validation is
    not counted. No device synchronisation: on a GPU the averages are right because logging waits,
    single steps are not measured.

    Args:
        bar: Show images/s on the progress bar.
    """

    def __init__(self, bar: bool = True) -> None:
        self._bar = bar
        self._restart()

    def _restart(self) -> None:
        self._mark = self._end = time.perf_counter()
        self._waited, self._images, self._steps = 0.0, 0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave validation out."""
        self._restart()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Everything since the last step ended was waiting for this batch."""
        self._waited += time.perf_counter() - self._end

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; log every few."""
        self._end = time.perf_counter()
        self._images += len(batch.unit) * trainer.world_size
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        passed = self._end - self._mark
        pl_module.log("img/s", self._images / passed, prog_bar=self._bar, logger=False)
        pl_module.log_dict(
            {
                "throughput/images_per_s": self._images / passed,
                "throughput/step_s": passed / self._steps,
                "throughput/data_wait": self._waited / passed,
            }
        )
        self._restart()
