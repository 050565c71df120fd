"""Shards: what is here shares the memory of what is spread, and norms are of the whole."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from lightning_rad.collectives import average, local_shards, rank, spread_like, whole_norms
from tests.gloo import run_on_ranks

SHAPES = [(5, 3), (1, 2), (8,), (3, 2, 2)]  # fewer rows than ranks, and rows that ranks divide


def wholes() -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=make, dtype=torch.float64) for shape in SHAPES]


def spread(tensors: list[Tensor], hybrid: bool = False) -> list[Tensor]:
    world = dist.get_world_size()
    sizes = (2, world // 2) if hybrid else (world,)
    mesh = init_device_mesh("cpu", sizes)
    how = [Replicate(), Shard(0)] if hybrid else [Shard(0)]
    return [distribute_tensor(x, mesh, how) for x in tensors]


def _norms(hybrid: bool) -> Any:
    reduced: list[int] = []
    real = dist.all_reduce

    def watched(x: Tensor, **how: Any) -> Any:
        reduced.append(x.numel())
        return real(x, **how)

    sharded = spread(wholes(), hybrid)
    whole = torch.full((4,), 2.0, dtype=torch.float64)
    with patch.object(dist, "all_reduce", watched):
        mixed = whole_norms([*sharded, whole])
        alone = whole_norms([whole])
        by_parts = whole_norms(local_shards(sharded), sharded)
    return mixed, alone, by_parts, reduced


@pytest.mark.parametrize(("ranks", "hybrid"), [(2, False), (4, False), (4, True)])
def test_norms_are_of_whole_tensors_in_one_all_reduce(ranks: int, hybrid: bool) -> None:
    expected = torch.stack([x.norm() for x in wholes()])
    for mixed, alone, by_parts, reduced in run_on_ranks(_norms, ranks, hybrid):
        torch.testing.assert_close(mixed[:-1], expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(by_parts, expected, rtol=1e-14, atol=0)
        assert mixed[-1] == alone[0] == 4
        assert reduced == [len(SHAPES) + 1, len(SHAPES)]


def test_norms_of_whole_tensors_are_torchs_own_bit_for_bit() -> None:
    assert torch.equal(whole_norms(wholes()), torch.stack([x.norm() for x in wholes()]))


def _moved() -> list[Tensor]:
    sharded = spread(wholes())
    with torch.no_grad():
        torch._foreach_add_(local_shards(sharded), 1.0)
    return [x.full_tensor() for x in sharded if isinstance(x, DTensor)]


def test_what_is_done_to_shards_is_done_to_the_tensor() -> None:
    for moved in run_on_ranks(_moved, 2):
        assert all(torch.equal(x, y + 1) for x, y in zip(moved, wholes(), strict=True))


def _spread_again(hybrid: bool) -> list[bool]:
    like = spread(wholes(), hybrid)
    here = [spread_like(x, y) for x, y in zip(wholes(), like, strict=True)]
    same = [
        isinstance(x, DTensor)
        and x.placements == y.placements
        and torch.equal(*local_shards([x, y]))
        for x, y in zip(here, like, strict=True)
    ]
    other = torch.ones(7)
    return [*same, spread_like(other, like[0]) is other, spread_like(other, other) is other]


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_whole_tensor_is_spread_as_another_is(hybrid: bool) -> None:
    for found in run_on_ranks(_spread_again, 4, hybrid):
        assert all(found)


def _averaged() -> float:
    x = torch.tensor(float(rank()) + 1)
    average(x)
    average(x)  # a mean of means is the mean
    return float(x)


def test_an_average_is_that_of_all_ranks() -> None:
    assert run_on_ranks(_averaged, 2) == [1.5, 1.5]
    assert run_on_ranks(_averaged, 1) == [1.0]


def _two_meshes() -> None:
    whole_norms([*spread(wholes()), *spread(wholes(), hybrid=True)])


def test_norms_over_different_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="sharded over different ranks"):
        run_on_ranks(_two_meshes, 4)
