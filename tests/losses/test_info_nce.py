"""InfoNCE against cross entropy, and at its extremes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_rad.losses.info_nce import info_nce


def rows(number: int, seed: int, features: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, features, generator=generator, dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 6),
    k=st.integers(1, 9),
    temperature=st.floats(0.01, 5),
    scale=st.floats(1e-2, 1e3),
)
def test_it_is_the_cross_entropy_of_the_positive_before_the_keys(
    n: int, k: int, temperature: float, scale: float
) -> None:
    q, p, keys = rows(n, 1), unit(rows(n, 2)), unit(rows(k, 3))
    logits = torch.cat([(unit(q) * p).sum(1, keepdim=True), unit(q) @ keys.T], dim=1)
    wanted = nn.functional.cross_entropy(
        logits / temperature, torch.zeros(n, dtype=torch.int64)
    ).item()
    got = info_nce(q * scale, p, keys, temperature=temperature).item()
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 5), before=st.integers(0, 4), after=st.integers(0, 4))
def test_with_an_offset_the_positive_is_a_key_and_counts_once(
    n: int, before: int, after: int
) -> None:
    if n + before + after == 1:
        return
    q, keys = rows(n, 1), unit(rows(before + n + after, 3))
    positive = keys[before : before + n]
    target = torch.arange(before, before + n)
    wanted = nn.functional.cross_entropy(unit(q) @ keys.T / 0.3, target).item()
    got = info_nce(q, positive, keys, temperature=0.3, offset=before).item()
    assert got == pytest.approx(wanted, rel=1e-10)


def test_one_key_that_is_the_positive_costs_nothing() -> None:
    """The batch of one row on one process: no negative at all."""
    q, key = rows(1, 1).requires_grad_(), unit(rows(1, 2))
    loss = info_nce(q, key, key, temperature=0.2, offset=0)
    loss.backward()
    assert loss.item() == 0
    assert q.grad is not None
    assert torch.isfinite(q.grad).all()


def test_its_gradient_is_that_of_the_cross_entropy_and_reaches_the_query_only() -> None:
    q, p, keys = (x.requires_grad_() for x in (rows(4, 1), unit(rows(4, 2)), unit(rows(6, 3))))
    info_nce(q, p, keys, temperature=0.2).backward()
    assert p.grad is None
    assert keys.grad is None
    other = q.detach().clone().requires_grad_()
    logits = torch.cat([(unit(other) * p).sum(1, keepdim=True), unit(other) @ keys.T], dim=1) / 0.2
    nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).backward()
    torch.testing.assert_close(q.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_widened_and_autocast_does_not_reach_it(dtype: torch.dtype) -> None:
    q, p, keys = (x.to(dtype) for x in (rows(4, 1), unit(rows(4, 2)), unit(rows(6, 3))))
    wanted = info_nce(q.double(), p.double(), keys.double(), temperature=0.07).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = info_nce(q, p, keys, temperature=0.07)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(wanted, rel=1e-5)


def test_far_positives_at_the_lowest_temperature_are_finite() -> None:
    q = torch.eye(3)
    loss = info_nce(q, -q, q, temperature=0.01)
    assert loss.item() == pytest.approx(200.0)
