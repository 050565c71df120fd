"""The focal loss against its formula, element by element, and where labels are unknown."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_rad.losses.focal import focal

NAN = math.nan


def given() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (6, 4), generator=generator).double()
    labels[1, 2] = labels[3] = NAN
    return logits.requires_grad_(), labels


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.3, 0.5), (1.0, 0.0), (0.5, 3.0)])
def test_it_is_the_formula_summed_over_known_elements(alpha: float, gamma: float) -> None:
    logits, labels = given()
    total, known = focal(logits, labels, alpha=alpha, gamma=gamma)
    wanted, count = 0.0, 0
    for logit, label in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if math.isnan(label):
            continue
        p = 1 / (1 + math.exp(-logit))
        p = p if label == 1 else 1 - p
        wanted -= (alpha if label == 1 else 1 - alpha) * (1 - p) ** gamma * math.log(p)
        count += 1
    assert int(known) == count == 19
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-12)


def test_without_focus_and_weights_it_is_half_the_cross_entropy() -> None:
    logits, labels = given()
    known = ~labels.isnan()
    total, _ = focal(logits, labels, alpha=0.5, gamma=0.0)
    wanted = binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum") / 2
    torch.testing.assert_close(total, wanted)


def test_it_is_not_the_focal_form_of_the_mean() -> None:
    logits, labels = given()
    known = ~labels.isnan()
    mean = binary_cross_entropy_with_logits(logits[known], labels[known])
    of_mean = 0.25 * (1 - torch.exp(-mean)) ** 2 * mean
    total, count = focal(logits, labels)
    assert abs(float((total / count - of_mean).detach())) > 0.01


def test_unknown_elements_have_no_gradient_even_where_their_logit_is_no_number() -> None:
    logits, labels = given()
    with torch.no_grad():
        logits[3, 0], logits[3, 1] = NAN, math.inf
    focal(logits, labels)[0].backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, ~labels.isnan())


def test_with_nothing_known_it_is_zero_and_still_in_the_graph() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    total, known = focal(logits, torch.full((3, 2), NAN))
    total.backward()
    assert (float(total.detach()), int(known)) == (0.0, 0)
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(3, 2))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_it_and_its_gradient_are_finite_at_any_logit(gamma: float) -> None:
    logits = torch.tensor([[100.0, -100.0, 1e4, -1e4]]).requires_grad_()
    for label in (0.0, 1.0):
        logits.grad = None
        total, _ = focal(logits, torch.full((1, 4), label), gamma=gamma)
        total.backward()
        weight = 0.25 if label else 0.75
        assert float(total.detach()) == pytest.approx(weight * 10_100.0, rel=1e-6)
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert float(logits.grad.abs().max()) == pytest.approx(weight, rel=1e-6)


def test_the_gradient_is_that_of_differences() -> None:
    logits, labels = given()
    assert torch.autograd.gradcheck(lambda x: focal(x, labels)[0], (logits,))


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = given()
    total, _ = focal(logits.detach().bfloat16(), labels.float())
    assert total.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = focal(logits.detach().bfloat16(), labels.float())
    assert torch.equal(again, total)
