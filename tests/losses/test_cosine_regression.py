"""The normalised squared error: 2 - 2 cos, whatever the lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_rad.losses.cosine_regression import cosine_regression


def rows(seed: int, number: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 5, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(number=st.integers(1, 7), a=st.floats(1e-3, 1e3), b=st.floats(1e-3, 1e3))
def test_it_is_the_mean_of_two_minus_two_cosines_at_any_length(
    number: int, a: float, b: float
) -> None:
    p, t = rows(1, number), rows(2, number)
    wanted = (2 - 2 * nn.functional.cosine_similarity(p, t)).mean().item()
    assert cosine_regression(a * p, b * t).item() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(("turn", "wanted"), [(1.0, 0.0), (-1.0, 4.0)])
def test_it_lies_between_0_and_4(turn: float, wanted: float) -> None:
    p = rows(1)
    assert cosine_regression(p, turn * p).item() == pytest.approx(wanted, abs=1e-12)


def test_gradient_reaches_the_prediction_only_and_is_perpendicular_to_it() -> None:
    p, t = rows(1).requires_grad_(), rows(2).requires_grad_()
    cosine_regression(p, t).backward()
    assert t.grad is None
    assert p.grad is not None
    assert p.grad.abs().max() > 1e-3
    assert (p.grad * p).sum(1).abs().max() < 1e-12
    other = rows(1).requires_grad_()
    (2 - 2 * nn.functional.cosine_similarity(other, t.detach())).mean().backward()
    torch.testing.assert_close(p.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_autocast_does_not_reach_it(dtype: torch.dtype) -> None:
    p, t = rows(1).to(dtype), rows(2).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = cosine_regression(p, t)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(cosine_regression(p.double(), t.double()).item(), rel=1e-5)


def test_a_prediction_of_zero_costs_one_and_leaves_no_nan() -> None:
    p = torch.zeros(2, 5, requires_grad=True)
    loss = cosine_regression(p, rows(1, 2).float())
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()
