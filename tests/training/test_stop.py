"""A signal ends a run between two steps, with its checkpoint, on all ranks and without a hang."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from lightning_rad.training.agreement import Agreement
from lightning_rad.training.death import LastWords
from lightning_rad.training.stop import Stop
from tests.objectives.test_base import simclr, small_trainer
from tests.processes import Pace, reach
from tests.runs import Run, data, started, train

EVERY = Agreement().every


def callbacks(pace: list[float], in_validation: float = 0.0) -> list[Callback]:
    """Ranks of different speed."""
    return [LastWords(), Pace(pace, in_validation)]


def same(first: Run, second: Run) -> bool:
    one, two = first.checkpoint, second.checkpoint
    assert one["global_step"] == two["global_step"]
    one, two = one["state_dict"], two["state_dict"]
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture(scope="module")
def undisturbed(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 steps on 2 ranks."""
    run = Run(tiny_shards, tmp_path_factory.mktemp("whole"), 12, ranks=2, save_every=1000)
    train(run)
    return run


def stop_and_go_on(run: Run, at: str, signals: list[tuple[int, int]], status: int) -> int:
    """Signals (rank, number) at a place of rank 0; the step it stopped at. Then to the end."""
    with started(run) as processes:
        reach(run.folder, at, rank=0)
        for rank, number in signals:
            pid = processes[rank].pid
            assert pid is not None
            os.kill(pid, number)
            time.sleep(0.05)
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [status] * run.ranks, run.said
    step = int(run.checkpoint["global_step"])
    assert f"stopped at step {step} after" in run.said
    train(run)
    return step


BOTH = (0, 1)


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([(rank, signal.SIGTERM) for rank in BOTH], 85),
        ([(1, signal.SIGTERM)], 85),
        ([(rank, signal.SIGUSR1) for rank in BOTH], 85),
        ([(rank, signal.SIGINT) for rank in BOTH], 130),
        ([(0, signal.SIGTERM), (1, signal.SIGTERM), (0, signal.SIGTERM)], 85),
        ([(0, signal.SIGINT), (1, signal.SIGTERM)], 85),
    ],
    ids=["term", "term-on-one", "usr1", "int", "term-twice", "int-and-term"],
)
def test_ranks_out_of_step_stop_at_one_step_and_go_on_as_if_undisturbed(
    undisturbed: Run,
    tmp_path: Path,
    signals: list[tuple[int, int]],
    status: int,
    fault: Callable[..., None],
) -> None:
    run = Run(
        *(undisturbed.shards, tmp_path, 12),
        ranks=2,
        save_every=1000,
        callbacks=partial(callbacks, [0.0, 0.3]),
    )
    step = stop_and_go_on(run, "train 3", signals, status)
    assert 3 < step <= 3 + 1 + 2 * EVERY  # a rank may be one step ahead
    assert same(run, undisturbed)
    assert run.log == undisturbed.log
    sent = ", ".join(f"{signal.Signals(number).name} to rank {rank}" for rank, number in signals)
    fault(
        f"{sent}; two ranks 0.3 s a step apart",
        injected="kill, in step 3",
        outcome=f"both stop after step {step - 1}, save, exit {status}",
        lost=0,
    )


def test_a_stop_waits_for_the_optimiser_step(
    tiny_shards: Path, tmp_path: Path, fault: Callable[..., None]
) -> None:
    """Signalled after the first of three micro-batches."""
    accumulating = {"accumulate_grad_batches": 3}
    whole = Run(tiny_shards, tmp_path / "whole", 8, ranks=2, save_every=1000, trainer=accumulating)
    train(whole)
    run = Run(
        *(tiny_shards, tmp_path / "cut", 8),
        ranks=2,
        save_every=1000,
        trainer=accumulating,
        callbacks=partial(callbacks, [0.05, 0.2]),
    )
    step = stop_and_go_on(run, "train 1 4", [(0, signal.SIGTERM)], 85)
    assert 1 < step <= 2 + 2 * EVERY
    assert same(run, whole)
    fault(
        "SIGTERM while gradients are accumulated",
        injected="kill, after the first of three micro-batches",
        outcome=f"stops between two optimiser steps, at {step}, exit 85",
        lost=0,
    )


def test_a_stop_in_mid_epoch_does_not_count_the_epoch(
    tiny_shards: Path, tmp_path: Path, fault: Callable[..., None]
) -> None:
    epochs = {"max_steps": -1, "max_epochs": 2}
    whole = Run(tiny_shards, tmp_path / "whole", -1, ranks=2, save_every=1000, trainer=epochs)
    train(whole)
    run = Run(
        *(tiny_shards, tmp_path / "cut", -1),
        ranks=2,
        save_every=1000,
        trainer=epochs,
        callbacks=partial(callbacks, [0.0, 0.1]),
    )
    step = stop_and_go_on(run, "train 3", [(0, signal.SIGTERM)], 85)
    assert same(run, whole)
    assert run.log == whole.log
    fault(
        "SIGTERM in the middle of an epoch of a run of two epochs",
        injected="kill, rank 0, in step 3",
        outcome=f"stops at {step}, exit 85; the epoch goes on where it was",
        lost=0,
    )


@pytest.mark.parametrize("often", [{}, {"val_check_interval": 4}], ids=["epoch", "mid-epoch"])
def test_a_stop_does_not_wait_for_the_end_of_validation(
    tiny_shards: Path, tmp_path: Path, often: dict[str, Any], fault: Callable[..., None]
) -> None:
    trainer = {
        "max_steps": -1,
        "max_epochs": 2,
        "limit_val_batches": 1.0,
        "num_sanity_val_steps": 0,
        **often,
    }
    whole = Run(tiny_shards, tmp_path / "whole", -1, ranks=2, save_every=1000, trainer=trainer)
    train(whole)
    run = Run(
        *(tiny_shards, tmp_path / "cut", -1),
        ranks=2,
        save_every=1000,
        trainer=trainer,
        callbacks=partial(callbacks, [0.0, 0.0], 0.3),
    )
    stop_and_go_on(run, "validation", [(0, signal.SIGTERM)], 85)
    seen = [x for x in (run.folder / "pace-0.txt").read_text().splitlines() if "validation" in x]
    first = seen[0].split()[2]
    batches = len([x for x in seen if x.split()[2] == first])
    assert batches <= 2 * EVERY + 1
    assert same(run, whole)
    fault(
        f"SIGTERM in a validation {'in' if often else 'at the end of'} an epoch",
        injected="kill, rank 0, in its first batch",
        outcome=f"validation ends after batch {batches}, unmeasured; exit 85",
        lost=0,
    )


class CtrlC(Callback):
    """Sends SIGINT in the middle of the third step."""

    def on_before_backward(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)


def test_alone_a_signal_ends_the_step_it_falls_into(tmp_path: Path, tiny_shards: Path) -> None:
    from lightning_rad.training.checkpoint import Checkpoints
    from lightning_rad.training.checkpoint_io import FolderCheckpointIO

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = Stop()
    run = Run(tiny_shards, tmp_path, 50)
    trainer = small_trainer(
        callbacks=[CtrlC(), Agreement(), stop, Checkpoints(str(tmp_path / "checkpoints"))],
        max_steps=50,
        min_steps=20,  # which a signal does not wait for
        enable_checkpointing=True,
        plugins=[FolderCheckpointIO()],
    )
    trainer.fit(simclr(), datamodule=data(run))
    assert stop.status == 130
    assert run.checkpoint["global_step"] == trainer.global_step == 3
    assert run.checkpoint["RadiographData"]["positions"] == [24]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(SystemExit) as ended:
        stop.leave(trainer)
    assert ended.value.code == 130


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "TERM"])
def test_what_cannot_ask_for_a_requeue_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"stop.signals: {name}"):
        Stop([name])
