"""Ctrl-C ends a run between two steps, with its checkpoint."""

import signal
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback

from lightning_rad.training.checkpoint import LastCheckpoint
from lightning_rad.training.interrupt import StopOnInterrupt
from tests.objectives.test_base import simclr, small_trainer
from tests.runs import Run, data


class CtrlC(Callback):
    """Sends SIGINT in the middle of the third step."""

    def on_before_backward(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)


def test_the_first_interrupt_finishes_the_step_and_saves(tmp_path: Path, tiny_shards: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    checkpoint = LastCheckpoint(str(tmp_path), every_n_train_steps=1000)
    trainer = small_trainer(
        callbacks=[CtrlC(), stop, checkpoint], max_steps=50, enable_checkpointing=True
    )
    trainer.fit(simclr(), datamodule=data(Run(tiny_shards, tmp_path, 50)))
    assert stop.interrupted
    assert trainer.global_step == 3
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["global_step"] == 3
    assert saved["RadiographData"]["positions"] == [24]
    assert signal.getsignal(signal.SIGINT) is before
