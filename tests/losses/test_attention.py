"""Attention losses: their definitions written out, blank and flat maps, precision, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_rad.losses.attention import correlation, kl_of_maps

N, S = 3, 5


def logits(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, S, S, generator=generator, dtype=torch.float64)


def maps(seed: int = 1) -> Tensor:
    """Densities, some of their cells 0."""
    found = logits(seed).clamp_min(0.0)
    return found / found.sum((1, 2), keepdim=True)


def density(scores: Tensor) -> Tensor:
    return scores.flatten(1).softmax(1).view_as(scores)


def test_kl_is_its_sum_written_out() -> None:
    for row, (scores, wanted) in enumerate(zip(logits().tolist(), maps().tolist(), strict=True)):
        whole = sum(math.exp(x) for line in scores for x in line)
        total = 0.0
        for line, targets in zip(scores, wanted, strict=True):
            for x, q in zip(line, targets, strict=True):
                if q > 0:
                    total += q * (math.log(q) - math.log(math.exp(x) / whole))
        assert float(kl_of_maps(logits(), maps())[row]) == pytest.approx(total, rel=1e-12)


def test_correlation_is_pearsons() -> None:
    got = correlation(density(logits()), maps())
    for row in range(N):
        pair = torch.stack([density(logits())[row].flatten(), maps()[row].flatten()])
        assert float(got[row]) == pytest.approx(float(torch.corrcoef(pair)[0, 1]), rel=1e-12)


def test_a_map_predicted_as_it_is_costs_nothing() -> None:
    torch.testing.assert_close(
        kl_of_maps(logits(), density(logits())), torch.zeros(N).double(), rtol=0, atol=1e-14
    )
    torch.testing.assert_close(
        correlation(density(logits()), density(logits())), torch.ones(N).double()
    )


def test_a_blank_map_costs_nothing_and_pulls_nowhere() -> None:
    scores = logits().requires_grad_()
    blank = maps().clone()
    blank[1] = 0.0
    kl, cc = kl_of_maps(scores, blank), correlation(density(scores), blank)
    assert kl[1].item() == cc[1].item() == 0.0
    (kl.sum() + cc.sum()).backward()
    assert scores.grad is not None
    assert not scores.grad[1].any()
    assert scores.grad[0].abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flat_map_has_correlation_0_and_a_finite_gradient(dtype: torch.dtype) -> None:
    flat = torch.full((N, S, S), 0.3, dtype=dtype, requires_grad=True)
    scores = logits().to(dtype)
    for cc in (
        correlation(density(flat), maps().to(dtype)),
        correlation(density(scores), density(flat)),
    ):
        assert cc.abs().max() < 1e-3
        (grad,) = torch.autograd.grad(cc.sum(), flat)
        assert grad.isfinite().all()


def test_correlation_keeps_its_digits_for_densities_of_many_cells() -> None:
    """1e-6 of the deviation of 65,536 cells is far below float32's digits of the raw sums."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, 256, 256, generator=generator, dtype=torch.float64)
    q = p + torch.rand(1, 256, 256, generator=generator, dtype=torch.float64)
    p, q = p / p.sum() * 1e-12, q / q.sum()
    want = torch.corrcoef(torch.stack([p.flatten(), q.flatten()]))[0, 1]
    assert float(correlation(p.float(), q.float())) == pytest.approx(float(want), rel=1e-5)


def test_low_precision_is_computed_in_float32_even_under_autocast() -> None:
    low = logits().bfloat16()
    dense = density(low)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = kl_of_maps(low, maps().float()), correlation(dense, maps().float())
    wanted = kl_of_maps(low.double(), maps()), correlation(dense.double(), maps())
    for value, want in zip(got, wanted, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, want.float(), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda x: kl_of_maps(x, maps()), logits().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda x: correlation(density(x), maps()), logits().requires_grad_()
    )
