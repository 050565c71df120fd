"""Barlow Twins: its source written out, any number of ranks, and one rate in place of two."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.barlow_twins import BarlowTwins
from lightning_rad.optim.lars import LARS
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.transcribed.barlow_twins import barlow_twins_steps, lars_steps
from tests.objectives.transcribed.record import Step

STEPS, LR, REDUNDANCY = 3, 0.1, 0.05


def barlow_twins(norm: Norm = "none", **changes: Any) -> BarlowTwins:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "projector": lambda width: Projector(
            width, layers=3, out_features=8, norm=norm, ending="linear"
        ),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=LR),
        "redundancy": REDUNDANCY,
    }
    return BarlowTwins(SmallEncoder(norm), **(settings | changes)).double()


def expected(norm: Norm) -> list[Step]:
    objective = barlow_twins(norm)
    student = nn.Sequential(objective.encoder, objective.projector)
    views = [batch.views for batch in random_batches(STEPS)]
    return barlow_twins_steps(student, views, lambd=REDUNDANCY, lr=LR)


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_step_is_that_of_the_source_written_out(norm: Norm) -> None:
    steps = fit_steps(barlow_twins(norm), random_batches(STEPS))
    for step, wanted in zip(steps, expected(norm), strict=True):
        same(list(step.terms.values()), list(wanted.terms.values()))
        same(step.chain("encoder", "projector"), wanted.student)


def test_two_ranks_take_the_steps_of_one_on_the_whole_batch() -> None:
    """Without batch statistics in the network, which are each rank's own; the loss's are not."""
    for steps in run_on_ranks(fit_on_this_rank, 2, barlow_twins, random_batches(STEPS)):
        for step, wanted in zip(steps, expected("none"), strict=True):
            same(list(step.terms.values()), list(wanted.terms.values()))
            same(step.chain("encoder", "projector"), wanted.student)


@pytest.mark.parametrize("shape", [(5, 4), (5,)], ids=["weight", "bias"])
def test_a_scaled_loss_with_one_rate_takes_the_steps_of_two_rates(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    factors, scale = [1.0, 0.7, 0.2], 0.0048 / 0.2
    wanted = lars_steps(
        start, gradients, factors, lr_weights=0.2, lr_biases=0.0048, weight_decay=0.1
    )
    parameter = nn.Parameter(start.clone())
    group = {"params": [parameter], "adapt": parameter.ndim != 1}
    decay = scale * 0.1 if group["adapt"] else 0.0
    lars = LARS([group], lr=0.2, weight_decay=decay, velocity="adapted")
    for gradient, factor, after in zip(gradients, factors, wanted, strict=True):
        parameter.grad = scale * gradient
        lars.param_groups[0]["lr"] = factor * 0.2
        lars.step()
        same(parameter.detach(), after)


def test_the_scale_multiplies_both_terms() -> None:
    batch = random_batches(1)[0]
    plain, scaled = barlow_twins(), barlow_twins(scale=0.25)
    terms: list[dict[str, Tensor]] = [o.terms(o.embed(batch), batch) for o in (plain, scaled)]
    assert terms[0].keys() == {"invariance", "redundancy"}
    for name, term in terms[0].items():
        same(terms[1][name], 0.25 * term)


def test_bf16_autocast_leaves_the_terms_in_float32() -> None:
    objective, batch = barlow_twins().float(), random_batches(1)[0]
    batch.views = batch.views.float()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = objective.embed(batch)
        terms = objective.terms(embeddings, batch)
    assert embeddings["rows"].dtype == torch.bfloat16
    assert {term.dtype for term in terms.values()} == {torch.float32}


@pytest.mark.parametrize(("key", "value"), [("redundancy", -0.1), ("scale", 0.0)])
def test_a_weight_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key} must be"):
        barlow_twins(**{key: value})


def test_a_third_view_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BarlowTwins makes use of 2 views"):
        fit_steps(barlow_twins(), random_batches(1, views=3))
