"""VICReg's terms: what each is zero for, what it does not see, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_rad.losses.vicreg import covariance, invariance, variance

Term = Callable[[Tensor], Tensor]


def rows(count: int, features: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64).to(dtype)


def on_zero(z: Tensor) -> Tensor:
    """Invariance of one argument."""
    return invariance(z, torch.zeros_like(z))


def test_a_feature_costs_no_variance_from_a_deviation_of_one_on() -> None:
    one = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) / 2**0.5
    assert variance(one) == 0
    assert variance(3 * one) == 0
    assert variance(0.5 * one) == pytest.approx(1 - (0.25 + 1e-4) ** 0.5)


def test_collapsed_rows_have_almost_the_whole_variance_cost_and_a_finite_gradient() -> None:
    z = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    loss = variance(z)
    loss.backward()
    assert loss.item() == pytest.approx(0.99)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_uncorrelated_features_cost_no_covariance() -> None:
    white = torch.linalg.qr(rows(32, 6) - rows(32, 6).mean(0)).Q * 100
    assert covariance(white) < 1e-20


def test_repeated_features_cost_their_variance_squared_times_their_other_copies() -> None:
    z = rows(32, 1)
    assert float(covariance(z.expand(32, 5))) == pytest.approx(4 * float(z.var()) ** 2)


@pytest.mark.parametrize("term", [variance, covariance])
def test_a_shift_and_the_order_of_units_change_nothing(term: Term) -> None:
    z = 0.3 * rows(16, 4)
    moved = z[torch.randperm(16)] + torch.arange(4)
    assert float(term(moved)) == pytest.approx(float(term(z)), rel=1e-12)
    assert float(term(2 * z)) != pytest.approx(float(term(z)), rel=1e-2)


@pytest.mark.parametrize("term", [on_zero, variance, covariance])
def test_the_gradient_is_that_of_finite_differences(term: Term) -> None:
    assert torch.autograd.gradcheck(term, (0.3 * rows(5, 3)).requires_grad_())


@pytest.mark.parametrize("term", [on_zero, variance, covariance])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_rows_give_a_float32_loss(term: Term, dtype: torch.dtype) -> None:
    low = 0.3 * rows(64, 32, dtype=dtype)
    assert term(low).dtype == torch.float32
    assert float(term(low)) == pytest.approx(float(term(low.double())), rel=1e-5)


@pytest.mark.parametrize("term", [on_zero, variance, covariance])
def test_one_unit_is_too_few(term: Term) -> None:
    with pytest.raises(ValueError, match="needs 2 units, not 1"):
        term(rows(1, 4))
