"""MoCo v3: both directions, the batch's own keys, a rising momentum, a patch embedding at rest."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import Snapshot, fit_on_this_rank, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

ROWS, TEMPERATURE = 8, 0.2


def moco_v3(norm: Norm = "none", **changes: Any) -> MoCoV3:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "encoder": SmallEncoder(norm),
        "projector": lambda width: Projector(width, out_features=8, norm=norm),
        "predictor": lambda width: Projector(width, out_features=8, norm=norm, ending="linear"),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "momentum": 0.9,
        "temperature": TEMPERATURE,
    }
    return MoCoV3(**(given | changes)).double()


def batch() -> ViewBatch:
    return random_batches(1, rows=ROWS)[0]


def swapped(given: ViewBatch) -> ViewBatch:
    return ViewBatch(given.views.flip(0), given.unit, given.patient, given.image.flip(0))


def loss(objective: MoCoV3, given: ViewBatch) -> Tensor:
    [term] = objective.terms(objective.embed(given), given).values()
    return term


def test_the_loss_is_the_cross_entropy_of_both_directions_times_twice_the_temperature() -> None:
    """By matrices: each prediction finds the key of the other view among the batch's keys."""
    objective, given = moco_v3(), batch()
    student = nn.Sequential(objective.encoder, objective.projector, objective.predictor)
    total = 0.0
    for own in (0, 1):
        q = nn.functional.normalize(student(given.views[own]))
        k = nn.functional.normalize(objective.twin(given.views[1 - own]))
        logits = q @ k.T / TEMPERATURE
        total += nn.functional.cross_entropy(logits, torch.arange(ROWS)).item() * 2 * TEMPERATURE
    assert loss(objective, given).item() == pytest.approx(total, rel=1e-10)


def test_swapping_the_views_changes_nothing() -> None:
    for norm in ("none", "batch"):
        objective, given = moco_v3(norm), batch()
        assert loss(objective, swapped(given)).item() == pytest.approx(
            loss(objective, given).item(), rel=1e-12
        )


def test_a_view_has_batch_statistics_of_its_own() -> None:
    """A view's prediction does not depend on what the other view shows."""
    objective, given = moco_v3("batch"), batch()
    before = objective.embed(given)
    given.views[1] *= 3
    after = objective.embed(given)
    for name in ("query", "key"):
        torch.testing.assert_close(after[name][0], before[name][0])
        assert not torch.allclose(after[name][1], before[name][1])


def test_the_gradient_does_not_scale_with_one_over_the_temperature() -> None:
    """The purpose of the factor: without it the gradient would be 10 times as large at 0.1."""
    norms = []
    for temperature in (1.0, 0.1):
        objective = moco_v3(temperature=temperature)
        loss(objective, batch()).backward()
        norms.append(objective.encoder.layers[0].weight.grad.norm())  # type: ignore[union-attr]
    assert 0.2 < norms[1] / norms[0] < 5


def test_no_gradient_reaches_twin_or_keys() -> None:
    objective, given = moco_v3(), batch()
    made = objective.embed(given)
    assert made["query"].requires_grad
    assert not made["key"].requires_grad
    asked = {name: value.detach().requires_grad_() for name, value in made.items()}
    objective.terms(asked, given)["info_nce"].backward()
    assert asked["query"].grad is not None
    assert asked["key"].grad is None
    assert not any(p.requires_grad for p in objective.twin.parameters())


def momenta(objective: MoCoV3, steps: list[Snapshot]) -> list[float]:
    """m of twin = m old + (1 - m) new, solved for."""
    name = "0.layers.0.weight"
    old = objective.encoder.layers[0].weight.detach().clone()  # type: ignore[union-attr]
    found = []
    for step in steps:
        new, twin = step.chain("encoder")[name], step.under("twin.net")[name]
        found.append(
            1
            - float((twin - old).flatten() @ (new - old).flatten())
            / float((new - old).square().sum())
        )
        old = twin
    return found


def test_the_momentum_of_step_k_is_that_before_the_next_forward_and_one_at_the_end() -> None:
    """1 - (1 - m) (1 + cos(pi k / total)) / 2 before step k; the twin that ends moves no more."""
    objective = moco_v3()
    before = moco_v3()
    found = momenta(before, fit_steps(objective, random_batches(4)))
    wanted = [1 - 0.1 * (1 + torch.tensor(torch.pi * k / 4).cos().item()) / 2 for k in (1, 2, 3, 4)]
    assert found == pytest.approx(wanted, abs=1e-6)
    assert wanted[1] == pytest.approx(0.95)
    assert found[3] == 1.0


@pytest.mark.parametrize("ranks", [2, 4])
def test_same_loss_and_gradient_on_any_number_of_ranks(ranks: int) -> None:
    assert_alike_on_ranks(moco_v3, batch(), ranks)


def test_twins_are_equal_on_all_ranks() -> None:
    mine, theirs = run_on_ranks(fit_on_this_rank, 2, partial(moco_v3, "batch"), random_batches(2))
    for name, _ in moco_v3("batch").twin.named_parameters():
        assert torch.equal(mine[-1].under("twin")[name], theirs[-1].under("twin")[name]), name


def vit() -> MoCoV3:
    """The smallest transformer of timm that is made of patches."""
    torch.manual_seed(0)
    encoder = Encoder(
        "test_vit",
        image_size=16,
        frozen=["patch_embed"],
        position="sincos",
        kwargs={"patch_size": 4},
    )
    return moco_v3(
        encoder=encoder,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1),
        momentum=0.5,
    )


def test_a_frozen_patch_embedding_moves_in_neither_student_nor_twin_and_positions_stay() -> None:
    objective = vit()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    resting = {n for n in start if "patch_embed" in n or "pos_embed" in n}
    assert len(resting) == 6  # weight, bias and positions, of both
    patches = objective.encoder.net.pos_embed.shape[1]  # type: ignore[union-attr]
    assert patches >= 16
    [*_, end] = fit_steps(objective, random_batches(3))
    for name, value in end.state.items():
        if name in resting:
            assert torch.equal(value, start[name]), name
        elif value.is_floating_point() and ("blocks" in name):
            assert not torch.equal(value, start[name]), name
