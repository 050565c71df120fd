"""NT-Xent over ranks: the loss and the parameter gradient of one process on the global batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_rad.collectives import gather_detached, rank, world_size
from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.nt_xent import nt_xent
from tests.gloo import run_on_ranks

UNITS = 8
Outcome = tuple[float, dict[str, Tensor]]
Gather = Callable[[Tensor], Tensor]
BACKENDS = ["fused", "reference"]


class _Encoder(nn.Sequential):
    """Without batch statistics; it learns the temperature, too."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 5))
        self.temperature = nn.Parameter(torch.tensor(0.1))
        self.double()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), self.temperature * 1


def _views() -> Tensor:
    """[V, B, 6], two noisy views of each unit of the global batch."""
    make = torch.Generator().manual_seed(1)
    units = torch.randn(UNITS, 6, generator=make, dtype=torch.float64)
    return units + 0.5 * torch.randn(2, UNITS, 6, generator=make, dtype=torch.float64)


def _loss(
    encoder: nn.Module, views: Tensor, ids: Tensor, gather: Gather, patients: int, backend: Any
) -> Tensor:
    """patients: 0 for no groups, else units are dealt to so many, the first of them unknown."""
    z_ND, temperature = encoder(views.flatten(0, 1))
    ids_M = gather_detached(ids.repeat(2))
    return nt_xent(
        z_ND,
        gather_detached(z_ND),
        ids_M,
        offset=rank() * len(z_ND),
        temperature=Learned(temperature, 0.01 if patients else 0.05),
        groups_M=ids_M % patients if patients else None,
        gather=gather,
        backend=backend,
    )


def _on_this_rank(gather: Gather, patients: int, backend: Any) -> Outcome:
    share = slice(rank() * UNITS // world_size(), (rank() + 1) * UNITS // world_size())
    model = DistributedDataParallel(_Encoder())
    loss = _loss(model, _views()[:, share], torch.arange(UNITS)[share], gather, patients, backend)
    loss.backward()
    mean = gather_detached(loss[None]).mean().item()
    grads = {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}
    return mean, grads


def _on_one_process(patients: int) -> Outcome:
    encoder = _Encoder()
    ids = torch.arange(UNITS)
    loss = _loss(encoder, _views(), ids, gather_detached, patients, "reference")
    loss.backward()
    return loss.item(), {k: p.grad for k, p in encoder.named_parameters() if p.grad is not None}


def _blind(x_N: Tensor) -> Tensor:
    """A gather that knows the other ranks' log-sum-exps but takes their weights for nothing."""
    every = gather_detached(x_N)
    others = torch.ones(len(every), dtype=torch.bool)
    others[rank() * len(x_N) : (rank() + 1) * len(x_N)] = False
    every[others, 1] = 0.0
    return every


def _own(x_N: Tensor) -> Tensor:
    """A gather that repeats what this rank has."""
    return x_N.repeat(world_size(), 1)


def _off_by(grads: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Largest relative error of a parameter's gradient, in norms."""
    assert grads.keys() == want.keys()
    return max(((grads[k] - g).norm() / g.norm()).item() for k, g in want.items())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("patients", [0, 3])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_gradient_of_one_process(ranks: int, patients: int, backend: str) -> None:
    want_loss, want = _on_one_process(patients)
    for loss, grads in run_on_ranks(_on_this_rank, ranks, gather_detached, patients, backend):
        assert loss == pytest.approx(want_loss, rel=1e-12)
        assert _off_by(grads, want) < 1e-10


@pytest.mark.parametrize("wrong", [_blind, _own])
def test_a_wrong_gather_keeps_the_loss_and_is_seen_in_the_gradient(wrong: Gather) -> None:
    want_loss, want = _on_one_process(0)
    for loss, grads in run_on_ranks(_on_this_rank, 2, wrong, 0, "fused"):
        assert loss == pytest.approx(want_loss, rel=1e-12)
        assert _off_by(grads, want) > 0.01


def test_groups_reach_across_ranks() -> None:
    """Units 1, 4, 7 and 2, 5 lie on both ranks: leaving them in would give another loss."""
    assert _on_one_process(3)[0] < 0.99 * _on_one_process(0)[0]


def test_more_than_two_positives_follow_supcon() -> None:
    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([7, 7, 7, 9, 9, 1])
    unit = torch.nn.functional.normalize(z, dim=1)
    logits = (unit @ unit.T / 0.2).fill_diagonal_(-torch.inf)
    log_p = logits.log_softmax(1)
    want = -torch.stack(
        [
            (log_p[0, 1] + log_p[0, 2]) / 2,
            (log_p[1, 0] + log_p[1, 2]) / 2,
            (log_p[2, 0] + log_p[2, 1]) / 2,
            log_p[3, 4],
            log_p[4, 3],
        ]
    ).mean()
    got = nt_xent(z, z, ids, temperature=0.2)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
