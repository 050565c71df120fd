"""Broadcast: every rank ends with the bits of rank 0, in place, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.collectives import broadcast, rank
from tests.gloo import run_on_ranks


def _tensors(seed: int) -> list[Tensor]:
    """As a network has them: statistics, a counter, a mask, nothing at all, and a NaN."""
    generator = torch.Generator().manual_seed(seed)
    floats = torch.randn(3, 4, generator=generator)
    return [
        floats,
        floats.double()[0] / 3,
        torch.tensor(2**62 + seed),
        floats > 0,
        floats[:0].clone(),
        torch.tensor([float("nan"), seed]),
    ]


def _sent() -> tuple[list[Tensor], bool]:
    tensors = _tensors(rank())
    places = [x.data_ptr() for x in tensors]
    broadcast(iter(tensors))
    return tensors, places == [x.data_ptr() for x in tensors]


def test_every_rank_holds_what_rank_0_held_in_the_same_memory() -> None:
    wanted, other = _tensors(0), _tensors(2)
    assert not torch.equal(wanted[0], other[0])
    for tensors, in_place in run_on_ranks(_sent, 3):
        assert in_place
        for got, sent in zip(tensors, wanted, strict=True):
            assert got.dtype == sent.dtype
            torch.testing.assert_close(got, sent, rtol=0, atol=0, equal_nan=True)


def _to_what_learns() -> tuple[Tensor, bool]:
    x = torch.full((2,), float(rank()), requires_grad=True)
    broadcast([x])
    return x.detach(), x.is_leaf and x.requires_grad


def test_a_parameter_is_filled_too_and_stays_one() -> None:
    for got, learns in run_on_ranks(_to_what_learns, 2):
        assert torch.equal(got, torch.zeros(2))
        assert learns


def test_one_process_keeps_what_it_has() -> None:
    x = torch.randn(3)
    before = x.clone()
    broadcast([x])
    assert torch.equal(x, before)
