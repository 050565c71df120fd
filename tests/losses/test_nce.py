"""NCE against its formula, and at its extremes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.losses.nce import nce, nce_log_partition


def rows(number: int, seed: int, features: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, features, generator=generator, dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x)


def nce_written_out(q: Tensor, p: Tensor, keys: Tensor, *, z: float, n: int, t: float) -> Tensor:
    """In float64, whose range holds every exponential here."""
    noise, total = len(keys) / n, q.new_zeros(())
    for i in range(len(q)):
        here = (q[i] @ p[i] / t).exp() / z
        total = total - (here / (here + noise + 1e-7)).log()
        for k in keys:
            there = (q[i] @ k / t).exp() / z
            total = total - (noise / (there + noise + 1e-7)).log()
    return total / len(q)


def test_nce_is_its_formula_and_its_gradient_reaches_the_query_only() -> None:
    q, p, keys = (x.requires_grad_() for x in (rows(4, 1), unit(rows(4, 2)), unit(rows(6, 3))))
    log_z = torch.tensor(37.0, dtype=torch.float64).log()
    loss = nce(q, p, keys, temperature=0.2, log_partition=log_z, images=90)
    wanted = nce_written_out(*(x.detach() for x in (unit(q), p, keys)), z=37.0, n=90, t=0.2)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-10)
    loss.backward()
    assert q.grad is not None
    assert p.grad is None
    assert keys.grad is None


def test_the_partition_is_the_number_of_images_times_the_mean_exponential() -> None:
    q, p, keys = rows(4, 1), unit(rows(4, 2)), unit(rows(6, 3))
    values = [math.exp(float(unit(q)[i] @ k) / 0.2) for i in range(4) for k in (p[i], *keys)]
    got = nce_log_partition(q, p, keys, temperature=0.2, images=90)
    assert got.exp().item() == pytest.approx(90 * sum(values) / len(values), rel=1e-10)
    assert not nce_log_partition(
        q.requires_grad_(), p, keys, temperature=0.2, images=9
    ).requires_grad


@pytest.mark.parametrize("images", [1, 700_000])
def test_nce_is_finite_at_the_lowest_temperature_in_float32(images: int) -> None:
    """exp(100), and so Z, is more than float32 holds."""
    q, keys = rows(4, 1).float(), unit(rows(60, 3)).float()
    how = {"temperature": 0.01, "images": images}
    log_z = nce_log_partition(q, unit(q), keys, **how)
    wide = nce_log_partition(*(x.double() for x in (q, unit(q), keys)), **how)
    loss = nce(q, unit(q), keys, log_partition=log_z, **how)
    assert log_z.item() == pytest.approx(wide.item(), rel=1e-5)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_z", [5.0, 10.0, 60.0])
@pytest.mark.parametrize("cosine", [-1.0, 0.0, 1.0])
def test_nce_and_its_gradient_are_those_of_the_formula_however_far_apart_rows_are(
    cosine: float, log_z: float, dtype: torch.dtype
) -> None:
    """P of a positive reaches from exp(-160) to exp(95) here: 0 and infinity in float32."""
    q, keys = torch.eye(4, dtype=torch.float64)[:3], unit(rows(6, 3, features=4))
    keys[0], keys[1] = q[0], -q[0]
    positive = cosine * q if cosine else q.roll(1, 0)
    narrow = q.clone().to(dtype).requires_grad_()
    loss = nce(
        narrow,
        positive.to(dtype),
        keys.to(dtype),
        temperature=0.01,
        log_partition=torch.tensor(log_z, dtype=dtype),
        images=90,
    )
    loss.backward()
    wide = q.clone().requires_grad_()
    wanted = nce_written_out(unit(wide), positive, keys, z=math.exp(log_z), n=90, t=0.01)
    wanted.backward()
    assert wide.grad is not None
    assert narrow.grad is not None
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5 if dtype == torch.float32 else 1e-9)
    torch.testing.assert_close(narrow.grad, wide.grad.to(dtype), rtol=1e-4, atol=1e-3)
