"""CLIP over ranks: the loss and every gradient of one process, learned temperature included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_rad.collectives import gather_detached, rank, world_size
from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.clip import clip
from tests.gloo import run_on_ranks

PAIRS = 8
Outcome = tuple[float, dict[str, Tensor]]


class Towers(nn.Module):
    """Two small encoders without batch statistics, and a temperature that is learned."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 5))
        self.text = nn.Sequential(nn.Linear(7, 16), nn.LayerNorm(16), nn.Linear(16, 5))
        self.log_scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.double()

    def forward(self, image: Tensor, text: Tensor, hashes: Tensor | None, how: Any) -> Tensor:
        rows = self.image(image), self.text(text)
        ids_M = gather_detached(torch.arange(len(image)) + rank() * len(image))
        return clip(
            *rows,
            *(gather_detached(x) for x in rows),
            ids_M=ids_M,
            groups_M=None if hashes is None else gather_detached(hashes),
            temperature=Learned((-self.log_scale).exp(), 0.01),
            offset=rank() * len(image),
            **how,
        )


def _pairs() -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(1)
    image = torch.randn(PAIRS, 6, generator=make, dtype=torch.float64)
    return image, torch.randn(PAIRS, 7, generator=make, dtype=torch.float64)


HASHES = torch.tensor([5, 0, 3, 5, 1, 0, 3, 9])


def _outcome(model: nn.Module, towers: Towers, grouped: bool, how: dict[str, Any]) -> Outcome:
    share = slice(rank() * PAIRS // world_size(), (rank() + 1) * PAIRS // world_size())
    image, text = (x[share] for x in _pairs())
    loss = model(image, text, HASHES[share] if grouped else None, how)
    loss.backward()
    grads = {k: p.grad for k, p in towers.named_parameters() if p.grad is not None}
    return gather_detached(loss.detach()[None]).mean().item(), grads


def _on_this_rank(temperature: float, grouped: bool, how: dict[str, Any]) -> Outcome:
    towers = Towers(temperature)
    gather = {"gather": _own if how.pop("deaf", False) else gather_detached}
    return _outcome(DistributedDataParallel(towers), towers, grouped, how | gather)


def _own(x_N: Tensor) -> Tensor:
    """A gather that repeats what this rank has."""
    return x_N.repeat(world_size(), *[1] * (x_N.ndim - 1))


def _off_by(grads: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    assert grads.keys() == want.keys()
    return max(((grads[k] - g).norm() / g.norm()).item() for k, g in want.items())


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize(("ranks", "grouped"), [(2, True), (4, False)])
def test_ranks_give_the_gradient_of_one_process(ranks: int, grouped: bool, backend: str) -> None:
    how = {"backend": backend, "image_share": 0.75}
    towers = Towers(0.1)
    want_loss, want = _outcome(towers, towers, grouped, how)
    assert "log_scale" in want
    for loss, grads in run_on_ranks(_on_this_rank, ranks, 0.1, grouped, how):
        assert loss == pytest.approx(want_loss, rel=1e-12)
        assert _off_by(grads, want) < 1e-10


def test_temperatures_out_of_range_and_a_wrong_gather() -> None:
    """A gather that leaves the other ranks out keeps the loss and is seen in the gradient."""
    towers = Towers(0.02)
    want_loss, want = _outcome(towers, towers, True, {"backend": "reference"})
    for deaf in (False, True):
        how = {"backend": "fused", "deaf": deaf}
        for loss, grads in run_on_ranks(_on_this_rank, 2, 0.02, True, how):
            assert loss == pytest.approx(want_loss, rel=1e-12)
            assert (_off_by(grads, want) > 0.01) if deaf else (_off_by(grads, want) < 1e-10)
