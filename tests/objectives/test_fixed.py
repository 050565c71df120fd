"""The harness itself: a step through the Trainer is the step written out, and shares are exact."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.simclr import SimCLR
from tests.gloo import run_on_ranks
from tests.objectives.fixed import (
    FixedBatches,
    fit_on_this_rank,
    fit_steps,
    random_batches,
    share,
)
from tests.objectives.small_nets import SmallEncoder
from tests.objectives.transcribed.micle import micle_steps
from tests.objectives.transcribed.record import state


def simclr() -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(
        SmallEncoder("none"),  # type: ignore[arg-type]
        projector=lambda width: Projector(width, out_features=8, norm="layer"),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        temperature=0.2,
        backend="reference",
    ).double()


def test_steps_of_simclr_are_the_steps_written_out() -> None:
    """With all bags of one image MICLe is SimCLR, so that transcription serves here."""
    objective, batches = simclr(), random_batches(4)
    student = nn.Sequential(objective.encoder, objective.projector)
    expected = micle_steps(
        student,
        [batch.views for batch in batches],
        patients=[batch.patient for batch in batches],
        faithful=True,
        temperature=0.2,
        lr=0.1,
    )
    steps = fit_steps(objective, batches)
    assert len(steps) == 4
    for step, wanted in zip(steps, expected, strict=True):
        assert step.terms == pytest.approx(wanted.terms, rel=1e-10, abs=1e-10)
        torch.testing.assert_close(
            step.chain("encoder", "projector"), wanted.student, rtol=1e-10, atol=1e-10
        )


def test_a_snapshot_is_not_what_a_later_step_changes() -> None:
    objective = simclr()
    start = state(objective)
    steps = fit_steps(objective, random_batches(3))
    weights = [start["projector.layers.0.weight"]]
    weights += [step.state["projector.layers.0.weight"] for step in steps]
    for earlier, later in pairwise(weights):
        assert not torch.equal(earlier, later)
    assert torch.equal(weights[-1], objective.projector.layers[0].weight)


def test_micro_batches_that_take_no_step_give_no_snapshot() -> None:
    steps = fit_steps(simclr(), random_batches(4), accumulate_grad_batches=2, max_steps=2)
    assert len(steps) == 2


def test_two_ranks_take_the_steps_of_one() -> None:
    alone = fit_steps(simclr(), random_batches(3))
    for steps in run_on_ranks(fit_on_this_rank, 2, simclr, random_batches(3)):
        for step, wanted in zip(steps, alone, strict=True):
            torch.testing.assert_close(step.state, wanted.state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_shares_of_all_ranks_are_the_batch(ranks: int) -> None:
    batch = random_batches(1)[0]
    shares = [share(batch, rank, ranks) for rank in range(ranks)]
    assert torch.equal(torch.cat([part.views for part in shares], dim=1), batch.views)
    assert torch.equal(torch.cat([part.unit for part in shares]), batch.unit)
    assert torch.equal(torch.cat([part.image for part in shares], dim=1), batch.image)


def test_the_data_say_of_themselves_what_objectives_check() -> None:
    data = FixedBatches(random_batches(2, views=3), unit="patient")
    assert (len(data.views), data.unit, data.global_batch) == (3, "patient", 8)
