"""Rows of unit length: their value and gradient, at every scale and in every corner."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_rad.kernels.unit_rows import EPSILON, unit_rows


def gradient(x: Tensor, weight: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (unit_rows(x) * weight).sum().backward()
    assert x.grad is not None
    return x.grad


@settings(deadline=None, max_examples=40)
@given(exponent=st.integers(-5, 150), features=st.integers(1, 9), seed=st.integers(0, 99))
def test_it_is_x_over_its_norm_and_so_is_its_gradient(
    exponent: int, features: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, features, generator=generator, dtype=torch.float64)
    x = (x + 0.1 * x.sign()) * 10.0**exponent
    weight = torch.randn(4, features, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(unit_rows(x), nn.functional.normalize(x))
    norm = x.norm(dim=1, keepdim=True)
    u = x / norm
    wanted = weight - (weight * u).sum(1, keepdim=True) * u
    torch.testing.assert_close(gradient(x, weight) * norm, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 7.0, 1e30])
@pytest.mark.parametrize("rest", [0.0, 1e-5])
def test_a_row_of_one_large_entry_is_pushed_sideways_only(
    rest: float, scale: float, dtype: torch.dtype
) -> None:
    """Beside 1, 1e-5 is too small to show in a float32 norm."""
    x = torch.full((3, 3), rest, dtype=dtype).fill_diagonal_(-1.0) * scale
    got = gradient(x, torch.ones_like(x)) * scale
    wanted = 1 - torch.eye(3, dtype=dtype)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_row_of_zeros_stays_and_its_gradient_is_finite(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, dtype=dtype)
    assert not unit_rows(x).any()
    wide = torch.zeros(2, 3, dtype=torch.float64)
    assert torch.equal(gradient(wide, torch.ones_like(wide)), torch.full_like(wide, 1 / EPSILON))
    tiny = torch.tensor([[EPSILON / 4, -EPSILON / 2]], dtype=torch.float64)
    torch.testing.assert_close(unit_rows(tiny), tiny / EPSILON)


def test_low_precision_is_widened_and_nothing_overflows() -> None:
    x = torch.tensor([[6e4, -6e4, 0.0]], dtype=torch.float16)
    assert unit_rows(x).dtype == torch.float32
    torch.testing.assert_close(unit_rows(x), torch.tensor([[1.0, -1.0, 0.0]]) / 2**0.5)
