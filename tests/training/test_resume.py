"""Runs that are killed and resumed end as if nothing had happened: order, pixels, weights, bits."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from lightning_rad.checkpoints import newest, read_contents
from lightning_rad.training.death import LastWords
from lightning_rad.training.strategies import DDP, Sharded
from tests.runs import Run, started, train, train_and_kill

STEPS = 13


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Run:
    run = Run(tiny_shards, tmp_path_factory.mktemp("undisturbed"), STEPS)
    train(run)
    return run


def assert_same_bits(a: object, b: object, where: str = "checkpoint") -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict), where
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same_bits(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple), where
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same_bits(*pair, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize(("kill_at", "threads"), [(1, 4), (3, 0), (8, 3), (11, 1)])
def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(
    undisturbed: Run, tmp_path: Path, kill_at: int, threads: int, fault: Callable[..., None]
) -> None:
    run = replace(undisturbed, folder=tmp_path, threads=threads)
    train_and_kill(run, kill_at)
    assert max(run.log) < STEPS - 1
    saved = newest(tmp_path / "checkpoints")
    lost = max(run.log) + 1 - (read_contents(saved).step if saved else 0)
    train(replace(run, threads=4 - threads))
    assert run.log == undisturbed.log
    for section in ("state_dict", "optimizer_states", "lr_schedulers", "RadiographData"):
        assert_same_bits(run.checkpoint[section], undisturbed.checkpoint[section], section)
    fault(
        f"SIGKILL, and another number of worker threads ({threads}, then {4 - threads})",
        injected=f"kill -9 in step {kill_at}, checkpoint every 2",
        outcome="goes on from the newest checkpoint",
        lost=lost,
    )


@pytest.mark.slow
def test_ranks_may_change_between_two_starts(
    undisturbed: Run, tmp_path: Path, fault: Callable[..., None]
) -> None:
    """4 ranks, killed; 2 ranks, killed; 1 rank to the end: the same units and pixels throughout."""
    run = replace(undisturbed, folder=tmp_path)
    expected = undisturbed.log
    seen: dict[int, list[tuple[int, ...]]] = {}
    for ranks, threads, kill_at in ((4, 1, 4), (2, 2, 8), (1, 0, None)):
        part = replace(run, ranks=ranks, threads=threads)
        train(part) if kill_at is None else train_and_kill(part, kill_at)
        seen |= part.log
        for log in tmp_path.glob("rows-*.txt"):
            log.unlink()
    assert seen == expected
    fault(
        "SIGKILL, and another number of ranks",
        injected="kill -9 of all 4 ranks, then of all 2, then one to the end",
        outcome="goes on each time from the newest checkpoint",
        lost="since the last checkpoint",
        identical="order and pixels: bits",
    )


def test_limits_and_epochs_skip_nothing(undisturbed: Run, tmp_path: Path) -> None:
    """Lightning epochs of 3 batches, validation inside them: still one endless order."""
    trainer = {"limit_train_batches": 3, "limit_val_batches": 1, "val_check_interval": 2}
    run = replace(undisturbed, folder=tmp_path, trainer=trainer)
    train(run)
    assert run.log == undisturbed.log


@pytest.mark.parametrize("kill_at", [4, 7])
def test_a_kill_inside_limited_epochs_skips_nothing(
    undisturbed: Run, tmp_path: Path, kill_at: int
) -> None:
    """The same limits, two ranks, killed in the middle of one of the short epochs."""
    trainer = {"limit_train_batches": 3, "limit_val_batches": 1, "val_check_interval": 2}
    run = replace(undisturbed, folder=tmp_path, trainer=trainer, ranks=2, threads=2)
    train_and_kill(run, kill_at)
    train(run)
    assert run.log == undisturbed.log


def test_a_larger_batch_goes_on_from_the_same_position(undisturbed: Run, tmp_path: Path) -> None:
    half = replace(undisturbed, folder=tmp_path, steps=4, save_every=100)
    train(half)
    assert half.checkpoint["RadiographData"]["positions"] == [32]
    train(replace(half, global_batch=16, steps=8))
    assert half.checkpoint["RadiographData"]["positions"] == [32 + 4 * 16]
    units = [{row[0] for row in rows} for rows in half.log.values()]
    whole = [{row[0] for row in rows} for rows in undisturbed.log.values()]
    assert units[:4] == whole[:4]
    assert units[4] == whole[4] | whole[5]


def test_a_longer_run_follows_the_schedule_of_its_new_length(
    undisturbed: Run, tmp_path: Path
) -> None:
    """Not the old one, which has ended at a rate of 0."""
    run = replace(undisturbed, folder=tmp_path, steps=4)
    train(run)
    train(replace(run, steps=STEPS))
    mine, theirs = run.checkpoint, undisturbed.checkpoint
    assert (
        mine["optimizer_states"][0]["param_groups"][0]["lr"]
        == (theirs["optimizer_states"][0]["param_groups"][0]["lr"])
    )
    assert mine["lr_schedulers"] == theirs["lr_schedulers"]


def test_checkpoints_fall_between_optimiser_steps_and_lose_no_gradient(
    undisturbed: Run, tmp_path: Path, fault: Callable[..., None]
) -> None:
    """Three micro-batches a step: killed and resumed equals undisturbed, in all bits."""
    trainer = {"accumulate_grad_batches": 3}
    whole = replace(undisturbed, folder=tmp_path / "whole", steps=5, trainer=trainer)
    train(whole)
    run = replace(whole, folder=tmp_path / "killed")
    train_and_kill(run, 3)
    assert run.checkpoint["RadiographData"]["positions"] == [
        run.checkpoint["global_step"] * 3 * run.global_batch
    ]
    train(run)
    for section in ("state_dict", "optimizer_states", "RadiographData"):
        assert_same_bits(run.checkpoint[section], whole.checkpoint[section], section)
    fault(
        "SIGKILL while gradients are accumulated",
        injected="kill -9 in step 3, three micro-batches a step",
        outcome="goes on between two optimiser steps",
        lost="since the last checkpoint",
    )


def test_a_trial_run_leaves_the_checkpoint_alone(undisturbed: Run, tmp_path: Path) -> None:
    run = replace(undisturbed, folder=tmp_path, steps=4)
    train(run)
    train(replace(run, trainer={"fast_dev_run": True}))
    assert run.checkpoint["global_step"] == 4


def test_resuming_on_other_data_is_refused(
    undisturbed: Run, tmp_path: Path, other_shards: Path, fault: Callable[..., None]
) -> None:
    run = replace(undisturbed, folder=tmp_path, steps=2)
    train(run)
    with pytest.raises(AssertionError, match=r"cannot resume: .* data\.manifest"):
        train(replace(run, shards=other_shards, steps=4))
    fault(
        "resumed on other data",
        injected="another manifest",
        outcome="refused, with both digests; --force_resume true goes on with a warning",
        lost=0,
        identical="-",
    )


def test_a_run_that_was_killed_while_saving_finds_the_checkpoint_before(
    undisturbed: Run, tmp_path: Path
) -> None:
    run = replace(undisturbed, folder=tmp_path, steps=4)
    train(run)
    part = tmp_path / "checkpoints" / "step-00000005.part"
    part.mkdir()
    (part / "plain.pt").write_bytes(b"half a checkpoint")
    train(replace(run, steps=6))
    assert run.checkpoint["global_step"] == 6
    assert not part.exists()


@pytest.mark.slow
def test_strategies_may_change_between_two_starts(
    tiny_shards: Path, tmp_path: Path, fault: Callable[..., None]
) -> None:
    """DDP on 2 ranks, then shards on 4 and on 2, then one process: killed each time but the last.

    In float64 and without dropout, whose numbers differ between ranks: sums of gradients in another
    order is all that is left of the ranks.
    """
    run = Run(tiny_shards, tmp_path / "whole", STEPS, exact=True)
    train(run)
    other = replace(run, folder=tmp_path / "changing")
    for ranks, strategy, kill_at in ((2, DDP, 4), (4, Sharded, 7), (2, Sharded, 10)):
        part = replace(other, ranks=ranks, trainer={"strategy": strategy()})
        train_and_kill(part, kill_at)
        assert part.checkpoint["global_step"] >= kill_at - 3
        for log in other.folder.glob("rows-*.txt"):
            log.unlink()
    train(other)
    mine, theirs = other.checkpoint["state_dict"], run.checkpoint["state_dict"]
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-9, atol=1e-9)
    assert other.checkpoint["RadiographData"] == run.checkpoint["RadiographData"]
    fault(
        "SIGKILL, and another strategy and number of ranks",
        injected="kill -9: DDP on 2, sharded on 4, sharded on 2, then one process",
        outcome="goes on each time from the newest checkpoint",
        lost="since the last checkpoint",
        identical="1e-9 in float64",
    )


class DeadThread(Callback):
    """A worker thread of rank 1 fails at something that is no bad sample."""

    def on_train_start(self, trainer: Any, *args: Any) -> None:
        reader = trainer.datamodule._stream.reader
        read, calls = reader.pixels_or_neighbour, itertools.count()

        def dies(image: int) -> Any:
            if trainer.global_rank == 1 and next(calls) > 20:
                raise MemoryError("a worker thread is out of memory")
            return read(image)

        reader.pixels_or_neighbour = dies


def dead_thread() -> list[Callback]:
    return [LastWords(), DeadThread()]


def test_a_worker_thread_that_dies_ends_the_run_which_goes_on_later(
    undisturbed: Run, tmp_path: Path, fault: Callable[..., None]
) -> None:
    """Two ranks; the error is the thread's own, and no rank waits for a batch that never comes."""
    whole = replace(undisturbed, folder=tmp_path / "whole", ranks=2)
    train(whole)
    run = replace(whole, folder=tmp_path / "dead", callbacks=dead_thread)
    begun = time.monotonic()
    with started(run) as processes:
        for process in processes:
            process.join(60)
        assert all(process.exitcode not in (0, None) for process in processes)
    took = time.monotonic() - begun
    assert "MemoryError" in run.said
    assert "a worker thread is out of memory" in run.said
    stopped = max(run.log) + 1
    train(replace(run, callbacks=None))
    assert run.log == whole.log
    for section in ("state_dict", "optimizer_states", "RadiographData"):
        assert_same_bits(run.checkpoint[section], whole.checkpoint[section], section)
    assert stopped < STEPS
    assert took < 60
    fault(
        "a worker thread of one of two ranks dies",
        injected="MemoryError while it decodes",
        outcome=f"its error on that rank, both ended {took:.0f} s after the start",
        lost="since the last checkpoint",
    )
