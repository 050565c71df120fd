"""The heartbeat is as old as the last batch."""

import os
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_rad.training.observers.heartbeat import Heartbeat


def test_an_earlier_runs_heartbeat_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    file.touch()
    Heartbeat(file).setup(mock.Mock(), None, "fit")
    assert not file.exists()


@pytest.mark.parametrize("phase", ["train", "validation", "test", "predict"])
def test_a_batch_of_any_phase_beats(tmp_path: Path, phase: str) -> None:
    file = tmp_path / "heartbeat"
    getattr(Heartbeat(file), f"on_{phase}_batch_end")(None, None, None, None, 0)
    assert time.time() - file.stat().st_mtime < 5


def test_batches_within_a_second_touch_once(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    heart = Heartbeat(file)
    with mock.patch("time.monotonic", side_effect=[10.0, 10.5, 11.1]):
        heart.beat()
        os.utime(file, (1, 1))
        heart.beat()
        assert file.stat().st_mtime == 1
        heart.beat()
        assert file.stat().st_mtime > 1


@pytest.mark.filterwarnings("ignore")
def test_lightning_calls_it(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[Heartbeat(file)],
    )
    trainer.fit(BoringModel(), torch.utils.data.DataLoader(torch.zeros(2, 32)))
    assert file.exists()


def test_a_run_has_one_where_the_environment_names_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIGHTNING_RAD_HEARTBEAT", raising=False)
    assert Heartbeat.asked_for() == []
    monkeypatch.setenv("LIGHTNING_RAD_HEARTBEAT", str(tmp_path / "heartbeat"))
    assert len(Heartbeat.asked_for()) == 1
