"""BYOL: both directions, nothing to push away, a twin that follows ever more slowly."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.byol import BYOL
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

ROWS = 8


def byol(norm: Norm = "none", **changes: Any) -> BYOL:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "projector": lambda width: Projector(width, out_features=8, norm=norm, ending="linear"),
        "predictor": lambda width: Projector(width, out_features=8, norm=norm, ending="linear"),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "momentum": 0.9,
    }
    return BYOL(SmallEncoder(norm), **(given | changes)).double()  # type: ignore[arg-type]


def batch() -> ViewBatch:
    return random_batches(1, rows=ROWS)[0]


def loss(objective: BYOL, given: ViewBatch) -> Tensor:
    [term] = objective.terms(objective.embed(given), given).values()
    return term


def test_the_loss_is_two_minus_two_cosines_summed_over_both_directions() -> None:
    objective, given = byol(), batch()
    student = nn.Sequential(objective.encoder, objective.projector, objective.predictor)
    total = 0.0
    for own in (0, 1):
        cosine = nn.functional.cosine_similarity(
            student(given.views[own]), objective.twin(given.views[1 - own])
        )
        total += (2 - 2 * cosine).mean().item()
    assert loss(objective, given).item() == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_swapping_the_views_changes_nothing(norm: Norm) -> None:
    objective, given = byol(norm), batch()
    other = ViewBatch(given.views.flip(0), given.unit, given.patient, given.image.flip(0))
    assert loss(objective, other).item() == pytest.approx(loss(objective, given).item(), rel=1e-12)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_identical_views_and_a_predictor_that_does_nothing_cost_nothing(norm: Norm) -> None:
    objective, given = byol(norm), batch()
    objective.predictor = nn.Identity()  # type: ignore[assignment]
    assert loss(objective, given).item() > 0.05
    given.views[1] = given.views[0]
    assert loss(objective, given).item() == pytest.approx(0.0, abs=1e-12)


def test_no_gradient_reaches_twin_or_targets() -> None:
    objective, given = byol(), batch()
    made = objective.embed(given)
    assert made["prediction"].requires_grad
    assert not made["target"].requires_grad
    asked = {name: value.detach().requires_grad_() for name, value in made.items()}
    objective.terms(asked, given)["cosine_regression"].backward()
    assert asked["prediction"].grad is not None
    assert asked["target"].grad is None
    assert not any(p.requires_grad for p in objective.twin.parameters())


def test_a_view_has_batch_statistics_of_its_own() -> None:
    objective, given = byol("batch"), batch()
    before = objective.embed(given)
    given.views[1] *= 3
    after = objective.embed(given)
    for name in ("prediction", "target"):
        torch.testing.assert_close(after[name][0], before[name][0])
        assert not torch.allclose(after[name][1], before[name][1])


def test_the_twin_follows_the_new_student_with_a_momentum_that_rises_along_half_a_cosine() -> None:
    """At step k of K: 1 - (1 - m) (1 + cos(pi k / K)) / 2, m itself at step 0."""
    total = 4
    twin = {name: p.clone() for name, p in byol().twin.net.named_parameters()}
    steps = fit_steps(byol(), random_batches(total))
    for k, step in enumerate(steps):
        keep = 1 - 0.1 * (1 + torch.tensor(torch.pi * k / total).cos().item()) / 2
        new = step.chain("encoder", "projector")
        twin = {name: keep * value + (1 - keep) * new[name] for name, value in twin.items()}
        torch.testing.assert_close(step.under("twin.net"), twin, rtol=1e-6, atol=1e-7)


def test_at_the_last_step_of_a_long_run_the_twin_hardly_moves() -> None:
    """The schedule ends at 1, wherever it starts; a constant momentum would move it a lot."""
    steps = fit_steps(byol(momentum=0.0), random_batches(20, rows=2))
    name = "0.layers.0.weight"
    before, after = (step.under("twin.net")[name] for step in steps[-2:])
    gap = (steps[-1].chain("encoder")[name] - before).norm()
    assert (after - before).norm() / gap == pytest.approx(
        (1 + torch.tensor(torch.pi * 19 / 20).cos().item()) / 2, rel=1e-3
    )


def test_the_twin_has_no_predictor() -> None:
    objective = byol()
    student = nn.Sequential(objective.encoder, objective.projector)
    assert student.state_dict().keys() == objective.twin.net.state_dict().keys()


@pytest.mark.parametrize("ranks", [2, 4])
def test_same_loss_and_gradient_on_any_number_of_ranks(ranks: int) -> None:
    assert_alike_on_ranks(byol, batch(), ranks)


def test_twins_are_equal_on_all_ranks() -> None:
    mine, theirs = run_on_ranks(fit_on_this_rank, 2, partial(byol, "batch"), random_batches(2))
    for name, _ in byol("batch").twin.named_parameters():
        assert torch.equal(mine[-1].under("twin")[name], theirs[-1].under("twin")[name]), name
