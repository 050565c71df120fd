"""Checkpoints are taken between two steps, when due, and what fails does no harm until the end."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.checkpoints import CheckpointError, checkpoints, read
from lightning_rad.checkpoints import write as write_module
from lightning_rad.training import checkpoint as checkpoint_module
from lightning_rad.training.checkpoint import Checkpoints
from lightning_rad.training.checkpoint_io import FolderCheckpointIO
from tests.gloo import run_on_ranks


class Counter(LightningModule):
    """One weight that grows by one a step, however many micro-batches that takes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return -self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def train(folder: Path, *callbacks: Callback, steps: int = 10, **settings: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[FolderCheckpointIO()],
        default_root_dir=folder,
        callbacks=list(callbacks),
        **({"devices": 1} | settings),
    )
    trainer.fit(Counter(), torch.utils.data.DataLoader(range(1000)))  # type: ignore[arg-type]
    return trainer


def weights(folder: Path) -> dict[int, float]:
    """The weight in each checkpoint: the steps it had seen."""
    return {step: float(read(p)["state_dict"]["weight"]) for step, p in checkpoints(folder).items()}


def test_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    train(tmp_path, Checkpoints(every_n_train_steps=4, keep=9))
    assert weights(tmp_path / "checkpoints") == {4: 4, 8: 8, 10: 10}


def test_the_newest_two_stay_and_multiples_for_ever(tmp_path: Path) -> None:
    train(tmp_path, Checkpoints(str(tmp_path), every_n_train_steps=2, keep_every_n_steps=4))
    assert list(checkpoints(tmp_path)) == [4, 8, 10]


@pytest.mark.parametrize("in_background", [True, False])
def test_micro_batches_are_not_parted_from_their_step(tmp_path: Path, in_background: bool) -> None:
    keeps = Checkpoints(str(tmp_path), every_n_train_steps=1, keep=9, in_background=in_background)
    train(tmp_path, keeps, steps=4, accumulate_grad_batches=3)
    assert weights(tmp_path) == {1: 1, 2: 2, 3: 3, 4: 4}


def test_none_at_the_step_a_run_started_from_nor_in_a_trial_run(tmp_path: Path) -> None:
    train(tmp_path, Checkpoints(str(tmp_path), every_n_train_steps=5), steps=5)
    [path] = checkpoints(tmp_path).values()
    before = path.stat().st_mtime_ns
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=5,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[FolderCheckpointIO()],
        callbacks=[Checkpoints(str(tmp_path), every_n_train_steps=1)],
    )
    loader: Any = torch.utils.data.DataLoader(range(1000))  # type: ignore[arg-type]
    trainer.fit(Counter(), loader, ckpt_path=str(tmp_path))
    assert [p.stat().st_mtime_ns for p in checkpoints(tmp_path).values()] == [before]
    train(tmp_path, Checkpoints(str(tmp_path / "trial"), every_n_train_steps=1), fast_dev_run=True)
    assert not (tmp_path / "trial").exists()


class Clock:
    """Time that goes on by ten seconds a look at a step's end."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Ticks(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *args: Any) -> None:
        self.clock.now += 10


def test_by_the_minute_counted_from_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(checkpoint_module, "time", clock)
    keeps = Checkpoints(str(tmp_path), every_n_train_steps=5, every_minutes=0.5, keep=9)
    train(tmp_path, Ticks(clock), keeps, steps=12)
    assert list(checkpoints(tmp_path)) == [3, 5, 8, 10, 12]


def test_asked_for_it_is_taken_after_the_step(tmp_path: Path) -> None:
    keeps = Checkpoints(str(tmp_path), every_n_train_steps=100, keep=9)

    class Asks(Callback):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 3:
                keeps.request()

    train(tmp_path, Asks(), keeps)
    assert weights(tmp_path) == {4: 4, 10: 10}


def _clock_on_two_ranks(folder: Path) -> list[int]:
    """Rank 1's clock is far ahead; rank 0's decides for both."""
    clock, rank = Clock(), torch.distributed.get_rank()
    real, checkpoint_module.time = checkpoint_module.time, clock  # type: ignore[attr-defined, assignment]
    keeps = Checkpoints(str(folder), every_n_train_steps=1000, every_minutes=1.0)
    saves = []
    for step in range(1, 41):
        clock.now += 3.0 if rank == 0 else 600.0
        if keeps._clock_says(step):
            saves.append(step)
            keeps._saved_at = clock.now
    checkpoint_module.time = real  # type: ignore[attr-defined]
    return saves


def test_ranks_save_at_the_same_steps_by_the_clock_of_the_first(tmp_path: Path) -> None:
    first, second = run_on_ranks(_clock_on_two_ranks, 2, tmp_path)
    assert first == second == [20, 40]


class FullDisk:
    """The disk is full at some saves, counted from the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *full: int) -> None:
        self.full, self.count, self.write = full, 0, write_module.write
        monkeypatch.setattr("lightning_rad.checkpoints.writer.write", self)

    def __call__(self, *args: Any, **how: Any) -> None:
        self.count += 1
        if self.count in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(*args, **how)


def test_a_full_disk_is_a_warning_and_the_next_checkpoint_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FullDisk(monkeypatch, 2)
    train(tmp_path, Checkpoints(str(tmp_path), every_n_train_steps=2, keep=9))
    assert list(checkpoints(tmp_path)) == [2, 6, 8, 10]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "step-00000004" in warnings[0]
    assert "No space left on device" in warnings[0]


def test_a_last_save_that_failed_in_the_background_is_tried_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, 5)
    train(tmp_path, Checkpoints(str(tmp_path), every_n_train_steps=2, keep=9))
    assert list(checkpoints(tmp_path)) == [2, 4, 6, 8, 10]


def test_a_disk_that_is_full_at_the_end_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None]
) -> None:
    FullDisk(monkeypatch, 2, 3, 4)
    with pytest.raises(CheckpointError, match=r"step-00000004.*No space left on device"):
        train(tmp_path, Checkpoints(str(tmp_path), every_n_train_steps=3), steps=4)
    assert list(checkpoints(tmp_path)) == [3]
    fault(
        "the disk is full when the last checkpoint is written",
        injected="ENOSPC in every write",
        outcome="an error with folder and cause, the checkpoint before stays",
        lost="since the last checkpoint",
        identical="-",
    )


def test_weights_that_are_lost_do_not_replace_those_that_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Callable[..., None]
) -> None:
    class Loses(Callback):
        def on_before_zero_grad(self, trainer: Trainer, module: Any, *args: Any) -> None:
            if trainer.global_step == 5:
                module.weight.data.fill_(float("nan"))

    lost = "state_dict.weight holds an infinity or a NaN"
    with pytest.raises(CheckpointError, match=lost):  # a run that ends without its last weights
        train(tmp_path, Loses(), Checkpoints(str(tmp_path), every_n_train_steps=2))
    assert weights(tmp_path) == {2: 2, 4: 4}
    assert "state_dict.weight holds an infinity or a NaN" in caplog.text
    fault(
        "a NaN in the weights",
        injected="at step 5",
        outcome="never saved; a warning names the tensor, the checkpoint before stays",
        lost="since the last checkpoint",
        identical="-",
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every_n_train_steps": 0}, "checkpoint.every_n_train_steps must be at least 1, got 0"),
        ({"every_minutes": 0.0}, "checkpoint.every_minutes must be above 0, got 0.0"),
        ({"keep": 0}, "checkpoint.keep must be at least 1, got 0"),
        ({"keep_every_n_steps": 0}, "checkpoint.keep_every_n_steps must be at least 1 or null"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Checkpoints(**settings)


def test_another_plugin_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=[Checkpoints(str(tmp_path))]
    )
    with pytest.raises(ValueError, match=r"trainer\.plugins to hold .*FolderCheckpointIO"):
        trainer.fit(Counter(), torch.utils.data.DataLoader(range(4)))  # type: ignore[arg-type]
