"""Ctrl-C ends a run between two steps, so that its checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class StopOnInterrupt(Callback):
    """The first Ctrl-C stops after the present step, without a validation; the second at once.

    Only on one process: ranks that stop at different steps would wait for each other for ever, so
    there a Ctrl-C ends the run at once and the newest checkpoint is the one before.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch for SIGINT."""
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return

        def stop(*_: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            trainer.should_stop = True
            trainer.limit_val_batches = 0
            pl_module.print("stopping after this step; Ctrl-C again stops at once")

        self._before = signal.signal(signal.SIGINT, stop)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give SIGINT back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
