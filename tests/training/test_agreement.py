"""All ranks act on what any of them asks, at the same step, soon, whatever their speeds."""

import random
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from lightning_rad.collectives import rank
from lightning_rad.training.agreement import Agreement, Flag
from tests.gloo import run_on_ranks
from tests.objectives.test_base import simclr, small_trainer
from tests.runs import Run, data

STEPS = 40


def one(agreement: Agreement, batches: list[int]) -> Any:
    """As much of a trainer as the callback reads."""
    trainer = mock.Mock(callbacks=[agreement], world_size=2, num_val_batches=batches)
    trainer.state.fn, trainer.sanity_checking = "fit", False
    trainer.fit_loop._should_accumulate.return_value = False
    return trainer


def ticks(
    every: int, asked: dict[int, tuple[int, Flag, int]], seed: int, batches: list[list[int]]
) -> list[tuple[int, Flag, int]]:
    """What one rank acted upon, and when: steps with sleeps of its own, a validation among them."""
    draw = random.Random(f"{seed}-{rank()}")
    agreement = Agreement(every)
    trainer = one(agreement, batches[rank()])
    agreement.setup(trainer, mock.Mock(), "fit")
    agreement.on_train_start(trainer, mock.Mock())
    acted: list[tuple[int, Flag, int]] = []
    for step in range(STEPS):
        time.sleep(draw.choice([0.0, 0.0, 0.002, 0.02]))
        who, flag, value = asked.get(step, (-1, Flag.SAVE, 0))
        if who == rank():
            agreement.ask(flag, value)
        agreement.on_train_batch_end(trainer, mock.Mock(), None, None, step)
        acted += [(step, f, v) for f in Flag if (v := agreement.take(f))]
        if step == STEPS // 2:
            agreement.on_validation_start(trainer, mock.Mock())
            for _ in range(batches[rank()][0]):
                agreement.on_validation_batch_end(trainer, mock.Mock())
    agreement.on_train_end(trainer, mock.Mock())
    return acted


@pytest.mark.parametrize("seed", range(6))
def test_what_any_rank_asks_all_do_at_one_step_within_two_votes(seed: int) -> None:
    draw = random.Random(seed)
    ranks, every = draw.choice([2, 3]), draw.choice([1, 2, 3, 5])
    steps = sorted(draw.sample(range(STEPS - 2 * every), 4))
    asked = {step: (draw.randrange(ranks), Flag.STOP, draw.randint(1, 120)) for step in steps}
    batches = [[draw.randint(0, 4)]] * ranks
    acted = run_on_ranks(ticks, ranks, every, asked, seed, batches)
    assert all(acts == acted[0] for acts in acted)
    stops = [(step, value) for step, flag, value in acted[0] if flag == Flag.STOP]
    for step, (_, _, value) in asked.items():
        later = [(at, of) for at, of in stops if step <= at <= step + 2 * every]
        assert any(of >= value for _, of in later), (step, value, stops)


def test_unequal_validations_do_not_part_the_ticks() -> None:
    asked = {STEPS // 2 + 2: (1, Flag.STOP, 7)}
    acted = run_on_ranks(ticks, 2, 2, asked, 0, [[5], [2]])
    assert acted[0] == acted[1]
    assert [value for _, flag, value in acted[0] if flag == Flag.STOP] == [7]


def hung_votes() -> list[int]:
    """A vote begun and never read before the end."""
    agreement = Agreement(2)
    trainer = one(agreement, [0])
    agreement.setup(trainer, mock.Mock(), "fit")
    for step in range(3):
        agreement.on_train_batch_end(trainer, mock.Mock(), None, None, step)
    agreement.ask(Flag.STOP)
    agreement.on_train_end(trainer, mock.Mock())
    return [agreement.take(Flag.STOP), int(agreement.meet(10))]


def test_the_end_leaves_no_vote_behind_and_acts_on_none() -> None:
    assert run_on_ranks(hung_votes, 2) == [[0, 1]] * 2


def test_alone_what_is_asked_is_agreed_at_once(
    tiny_shards: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted: list[int] = []
    agreement = Agreement(2)
    tick: Callable[[], None] = agreement.tick

    def ticked() -> None:
        if len(acted) == 2:
            agreement.ask(Flag.STOP, 9)
        tick()
        acted.append(agreement.take(Flag.STOP))

    monkeypatch.setattr(agreement, "tick", ticked)
    trainer = small_trainer(callbacks=[agreement], max_steps=5)
    trainer.fit(simclr(), datamodule=data(Run(tiny_shards, tmp_path, 5)))
    assert acted == [0, 0, 9, 0, 0]


def test_a_vote_needs_time() -> None:
    with pytest.raises(ValueError, match=r"agreement\.every must be at least 1"):
        Agreement(0)
