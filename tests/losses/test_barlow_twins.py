"""Barlow Twins' loss: what it is zero for, what it does not see, and what it refuses."""

import pytest
import torch
from torch import Tensor

from lightning_rad.losses.barlow_twins import barlow_twins


def rows(count: int, features: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64).to(dtype)


def test_equal_views_of_uncorrelated_features_cost_nothing() -> None:
    centred = rows(32, 6) - rows(32, 6).mean(0)
    white = torch.linalg.qr(centred).Q * 100
    invariance, redundancy = barlow_twins(white, white)
    assert invariance < 1e-11
    assert redundancy < 1e-11


def test_a_feature_that_all_repeat_is_all_redundant() -> None:
    repeated = rows(32, 1).expand(32, 5)
    invariance, redundancy = barlow_twins(repeated, repeated)
    assert invariance == pytest.approx(0, abs=1e-8)
    assert redundancy == pytest.approx(5 * 4, rel=1e-4)


def test_shift_and_scale_of_a_feature_change_nothing_but_its_sign_does() -> None:
    """But for the 1e-5 beside the variances, which are of the order of 100 here."""
    a, b = 10 * rows(16, 4), 10 * rows(16, 4, seed=1)
    wanted = torch.stack(barlow_twins(a, b))
    moved = a * torch.tensor([2.0, 3.0, 5.0, 7.0]) + 11
    assert torch.allclose(torch.stack(barlow_twins(moved, b)), wanted, rtol=1e-5)
    assert not torch.allclose(torch.stack(barlow_twins(-a, b)), wanted, rtol=1e-2)


def test_units_in_another_order_change_nothing_but_their_pairing_does() -> None:
    a, b = rows(16, 4), rows(16, 4, seed=1)
    wanted, order = torch.stack(barlow_twins(a, b)), torch.randperm(16)
    assert torch.allclose(torch.stack(barlow_twins(a[order], b[order])), wanted, rtol=1e-12)
    assert not torch.allclose(torch.stack(barlow_twins(a.roll(1, 0), b)), wanted, rtol=1e-2)


def test_the_gradient_is_that_of_finite_differences() -> None:
    a, b = rows(5, 3).requires_grad_(), rows(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(barlow_twins, (a, b))


def test_collapsed_rows_have_a_finite_loss_and_gradient() -> None:
    a = torch.ones(8, 4, dtype=torch.float64, requires_grad=True)
    invariance, redundancy = barlow_twins(a, a)
    (invariance + redundancy).backward()
    assert invariance.item() == pytest.approx(4)
    assert redundancy == 0
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_float32_and_bfloat16_rows_give_a_float32_loss() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        low = [rows(64, 32, seed, dtype) for seed in (0, 1)]
        got, wanted = barlow_twins(*low), barlow_twins(*(x.double() for x in low))
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype == torch.float32
            assert float(one) == pytest.approx(float(other), rel=1e-5)


def test_one_unit_is_too_few() -> None:
    with pytest.raises(ValueError, match="needs 2 units, not 1"):
        barlow_twins(rows(1, 4), rows(1, 4))
