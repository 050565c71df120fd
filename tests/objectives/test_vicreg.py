"""VICReg: its source written out, and the same on any number of ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.vicreg import VICReg
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.transcribed.record import Step
from tests.objectives.transcribed.vicreg import vicreg_steps

STEPS, LR, WEIGHTS = 3, 0.1, (2.0, 3.0, 5.0)


def vicreg(norm: Norm = "none", **changes: Any) -> VICReg:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "projector": lambda width: Projector(
            width, layers=3, out_features=8, norm=norm, ending="linear"
        ),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=LR),
        "weights": WEIGHTS,
    }
    return VICReg(SmallEncoder(norm), **(settings | changes)).double()


def expected(norm: Norm) -> list[Step]:
    objective = vicreg(norm)
    student = nn.Sequential(objective.encoder, objective.projector)
    views = [batch.views for batch in random_batches(STEPS)]
    sim, std, cov = WEIGHTS
    return vicreg_steps(student, views, sim_coeff=sim, std_coeff=std, cov_coeff=cov, lr=LR)


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_step_is_that_of_the_source_written_out(norm: Norm) -> None:
    steps = fit_steps(vicreg(norm), random_batches(STEPS))
    for step, wanted in zip(steps, expected(norm), strict=True):
        same(list(step.terms.values()), list(wanted.terms.values()))
        same(step.chain("encoder", "projector"), wanted.student)


def test_two_ranks_take_the_steps_of_one_on_the_whole_batch() -> None:
    """Without batch statistics in the network, which are each rank's own; the loss's are not."""
    for steps in run_on_ranks(fit_on_this_rank, 2, vicreg, random_batches(STEPS)):
        for step, wanted in zip(steps, expected("none"), strict=True):
            same(list(step.terms.values()), list(wanted.terms.values()))
            same(step.chain("encoder", "projector"), wanted.student)


def test_bf16_autocast_leaves_the_terms_in_float32() -> None:
    objective, batch = vicreg().float(), random_batches(1)[0]
    batch.views = batch.views.float()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = objective.embed(batch)
        terms = objective.terms(embeddings, batch)
    assert embeddings["rows"].dtype == torch.bfloat16
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_a_weight_below_zero_is_named() -> None:
    with pytest.raises(ValueError, match="weights must all be at least 0"):
        vicreg(weights=(25.0, -1.0, 1.0))


def test_a_third_view_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VICReg makes use of 2 views"):
        fit_steps(vicreg(), random_batches(1, views=3))
