"""Our losses and LARS against those of lightly, value and gradient, in float64.

lightly normalises rows with floors of its own (1e-12, 1e-8), which no row here comes near.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from lightly.utils import lars as lightly_lars
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim import Optimizer

from lightning_rad.losses.barlow_twins import barlow_twins
from lightning_rad.losses.cosine_regression import cosine_regression
from lightning_rad.losses.info_nce import info_nce
from lightning_rad.losses.nt_xent import nt_xent
from lightning_rad.losses.vicreg import covariance, invariance, variance
from lightning_rad.optim.lars import LARS, Velocity

SHAPES = [(2, 3), (7, 5), (32, 16), (9, 64)]
TEMPERATURES = [0.07, 0.5, 1.0]
SETTINGS = list(product(SHAPES, TEMPERATURES))

Loss = Callable[[Tensor, Tensor], Tensor]


def two_views(shape: tuple[int, int]) -> list[Tensor]:
    """Rows of two views that lie near each other, as in training, of any length."""
    generator = torch.Generator().manual_seed(shape[0] * shape[1])
    unit, *noise = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    lengths = torch.rand(shape[0], 1, generator=generator, dtype=torch.float64) + 0.1
    return [((unit + part) * lengths).requires_grad_() for part in noise]


def agree(ours: Loss, theirs: Loss, shape: tuple[int, int], *, learns: int = 2) -> None:
    """Value, and gradient of the first `learns` views, which must not vanish."""
    views = two_views(shape)
    got, wanted = ours(*views), theirs(*views)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    got_grad = torch.autograd.grad(got, views[:learns])
    wanted_grad = torch.autograd.grad(wanted, views[:learns])
    assert max(float(g.abs().max()) for g in wanted_grad) > 1e-6
    torch.testing.assert_close(got_grad, wanted_grad, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("shape", "temperature"), SETTINGS)
def test_nt_xent(shape: tuple[int, int], temperature: float) -> None:
    ids_N = torch.arange(shape[0]).repeat(2)

    def ours(a: Tensor, b: Tensor) -> Tensor:
        z = torch.cat([a, b])
        return nt_xent(z, z, ids_N, temperature=temperature)

    agree(ours, NTXentLoss(temperature), shape)


@pytest.mark.parametrize(("shape", "temperature"), SETTINGS)
@pytest.mark.parametrize("length", [1, 40])
def test_info_nce_with_a_queue(shape: tuple[int, int], temperature: float, length: int) -> None:
    """The bank is filled with our queue's keys before each use; it also moves, where ours stays."""
    generator = torch.Generator().manual_seed(length)
    queue_KD = torch.randn(length, shape[1], generator=generator, dtype=torch.float64)
    queue_KD = normalize(queue_KD, dim=1)

    def ours(query: Tensor, key: Tensor) -> Tensor:
        return info_nce(query, normalize(key, dim=1), queue_KD, temperature=temperature)

    def theirs(query: Tensor, key: Tensor) -> Tensor:
        loss = NTXentLoss(temperature, memory_bank_size=(length, shape[1])).double()
        loss.memory_bank.bank = queue_KD.clone()
        value: Tensor = loss(query, key.detach())
        return value

    agree(ours, theirs, shape, learns=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_cosine_regression_is_two_and_twice_the_negative_cosine(shape: tuple[int, int]) -> None:
    negative_cosine = NegativeCosineSimilarity()
    agree(cosine_regression, lambda p, t: 2 + 2 * negative_cosine(p, t.detach()), shape, learns=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", [0.0051, 0.5])
def test_barlow_twins(shape: tuple[int, int], weight: float) -> None:
    def ours(a: Tensor, b: Tensor) -> Tensor:
        same, others = barlow_twins(a, b)
        return same + weight * others

    agree(ours, BarlowTwinsLoss(lambda_param=weight), shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (0.0, 2.0, 3.0)])
def test_vicreg(shape: tuple[int, int], weights: tuple[float, float, float]) -> None:
    def ours(a: Tensor, b: Tensor) -> Tensor:
        near, varied, apart = weights
        return (
            near * invariance(a, b)
            + varied * (variance(a) + variance(b)) / 2
            + apart * (covariance(a) + covariance(b))
        )

    agree(ours, VICRegLoss(*weights), shape)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    ("velocity", "rates"),
    [("scaled", [0.3] * 5), ("adapted", [0.3, 0.3, 0.2, 0.1, 0.05])],
    ids=["scaled-at-one-rate", "adapted"],
)
def test_lars_without_decay(velocity: Velocity, rates: list[float], nesterov: bool) -> None:
    """With decay lightly divides by |g| + decay |w|, we (with all sources) by |g + decay w|.

    A decay of 1e-30 asks it to adapt and does nothing else; 0 is our `adapt: False`. Its rate stays
    out of the velocity, as with `adapted`.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    ours, theirs = ([nn.Parameter(part.clone()) for part in start] for _ in range(2))
    our_groups = [{"params": ours[:1]}, {"params": ours[1:], "adapt": False}]
    their_groups = [{"params": theirs[:1], "weight_decay": 1e-30}, {"params": theirs[1:]}]
    shared: dict[str, Any] = {"lr": 0.0, "momentum": 0.9, "nesterov": nesterov}
    optimizers: list[Optimizer] = [
        LARS(our_groups, weight_decay=0.0, velocity=velocity, **shared),
        lightly_lars.LARS(their_groups, eps=0.0, **shared),
    ]
    for rate in rates:
        for mine, yours in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(4, 3, generator=generator, dtype=torch.float64)
            yours.grad = mine.grad.clone()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert all(float((p - s).detach().abs().max()) > 1e-4 for p, s in zip(ours, start, strict=True))
