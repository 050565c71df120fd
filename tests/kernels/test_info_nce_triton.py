"""InfoNCE on tensor cores, interpreted on a CPU (as it is on a GPU), against the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.kernels.info_nce import fused_triton, info_nce, operator
from lightning_rad.kernels.temperature import Learned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
BOUNDS = {F32: 1e-5, F16: 2e-3, BF16: 8e-3}
"""Of the norm of a gradient; the interpreter cuts bfloat16 off where a GPU rounds it."""


@pytest.fixture(autouse=True)
def on_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operator.FORMS, DEVICE, "fused_triton")


def differentiated(
    query: Tensor, positive: Tensor, keys: Tensor, temperature: float, **how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and the gradients of queries and temperature for uneven upstream gradients."""
    query = query.clone().requires_grad_()
    tau = torch.tensor(temperature, dtype=torch.float64, device=DEVICE, requires_grad=True)
    losses = info_nce(
        query, positive, keys, temperature=Learned(tau, temperature), reduction="none", **how
    )
    weight = torch.linspace(-1, 2, len(losses), dtype=losses.dtype, device=DEVICE)
    (losses * weight).sum().backward()
    assert query.grad is not None
    assert tau.grad is not None
    return losses.detach(), query.grad, tau.grad


@pytest.mark.parametrize(
    ("dtype", "temperature", "offset", "rows", "keys", "dim"),
    [
        (F32, 0.02, None, 70, 300, 24),
        (F32, 0.1, 11, 70, 300, 70),
        (F32, 0.1, None, 1, 1, 1),
        (F16, 0.07, 5, 66, 130, 200),
        (F16, 0.02, None, 66, 130, 24),
        (BF16, 0.07, None, 70, 300, 128),
        (BF16, 0.02, 11, 70, 300, 24),
        (BF16, 0.5, 0, 66, 130, 300),
    ],
)
def test_equals_the_definition(
    dtype: torch.dtype, temperature: float, offset: int | None, rows: int, keys: int, dim: int
) -> None:
    make = torch.Generator().manual_seed(rows)
    query = torch.randn(rows, dim, generator=make)
    every = normalize(torch.randn(keys + rows, dim, generator=make)).to(dtype).to(DEVICE)
    queue = every[:keys]
    positive = every[keys:] if offset is None else queue[offset : offset + rows]
    query = (query + positive.float().cpu()).to(dtype).to(DEVICE)
    how: dict[str, Any] = {"offset": offset}
    got = differentiated(query, positive, queue, temperature, backend="fused", **how)
    exact = [x.double() for x in (query, positive, queue)]
    want = differentiated(*exact, temperature, backend="reference", **how)
    torch.testing.assert_close(got[0].double(), want[0], rtol=2e-6, atol=2e-5)
    assert (got[1].double() - want[1]).norm() <= BOUNDS[dtype] * want[1].norm() + 1e-5
    # rows pull 1/t both ways; bits that are all cut off the same way do not cancel as they do
    assert (got[2] - want[2]).abs() <= 10 * BOUNDS[dtype] * (want[2].abs() + 1)


def test_a_wider_queue_is_rounded_to_the_queries_and_strips_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = torch.Generator().manual_seed(3)
    query = torch.randn(20, 24, generator=make).to(DEVICE)
    keys = normalize(torch.randn(500, 24, generator=make)).to(DEVICE)
    positive = normalize(query)
    low = differentiated(query.bfloat16(), positive, keys, 0.1, backend="fused")
    rounded = differentiated(query.bfloat16(), positive, keys.bfloat16(), 0.1, backend="fused")
    torch.testing.assert_close(low, rounded, rtol=1e-2, atol=1e-2)
    many = differentiated(query, positive, keys, 0.1, backend="fused")
    monkeypatch.setattr(fused_triton, "PROGRAMS", 1)
    one = differentiated(query, positive, keys, 0.1, backend="fused")
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-5)


def test_an_aligned_positive_far_above_the_rest_gives_a_small_exact_gradient() -> None:
    """1 - P of the positive is 1e-13 here: it must not be a difference of two ones."""
    query = torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE)
    keys = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], device=DEVICE)
    _, gradient, _ = differentiated(query, query, keys, 1 / 30, backend="fused")
    assert gradient[0, 1].item() == pytest.approx(-30 * 2.718281828459045**-30, rel=1e-4)
