"""Runs that are killed and resumed end as if nothing had happened: order, pixels, weights, bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_rad.training.strategies import DDP, Sharded
from tests.runs import Run, train, train_and_kill

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
    undisturbed: Run, tmp_path: Path, kill_at: int, threads: int
) -> None:
    run = replace(undisturbed, folder=tmp_path, threads=threads)
    train_and_kill(run, kill_at)
    assert max(run.log) < STEPS - 1
    train(replace(run, threads=4 - threads))
    assert run.log == undisturbed.log
    for section in ("state_dict", "optimizer_states", "lr_schedulers", "RadiographData"):
        assert_same_bits(run.checkpoint[section], undisturbed.checkpoint[section], section)


@pytest.mark.slow
def test_ranks_may_change_between_two_starts(undisturbed: Run, tmp_path: Path) -> None:
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
    undisturbed: Run, tmp_path: Path
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


def test_a_trial_run_leaves_the_checkpoint_alone(undisturbed: Run, tmp_path: Path) -> None:
    run = replace(undisturbed, folder=tmp_path, steps=4)
    train(run)
    train(replace(run, trainer={"fast_dev_run": True}))
    assert run.checkpoint["global_step"] == 4


def test_resuming_on_other_data_is_refused(
    undisturbed: Run, tmp_path: Path, other_shards: Path
) -> None:
    run = replace(undisturbed, folder=tmp_path, steps=2)
    train(run)
    with pytest.raises(AssertionError, match=r"cannot resume: .* data\.manifest"):
        train(replace(run, shards=other_shards, steps=4))


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
def test_strategies_may_change_between_two_starts(tiny_shards: Path, tmp_path: Path) -> None:
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
