"""The config of a run, written into its folder."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback

from lightning_rad.evaluation.watch import fitting


class SavedConfig(SaveConfigCallback):
    """The config as parsed, but for the checkpoint a run started from, or was forced to.

    What `--init_from` gave stays, as the encoder's argument. Written when the work begins: what is
    refused on the way there leaves the run's file as it was.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **how: Any) -> None:
        config = config.clone()
        config.ckpt_path = config.init_from = None
        config.force_resume = False
        super().__init__(parser, config, **how)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Not yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        super().setup(trainer, pl_module, "fit")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, unless it is a validation of `fit`."""
        if not fitting(trainer):
            super().setup(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        super().setup(trainer, pl_module, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        super().setup(trainer, pl_module, "predict")
