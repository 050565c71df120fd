"""Tensors of which each rank holds a part: the part that is here, and the norm of the whole.

Shape letter: P tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_rad.collectives.ranks import world_size


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of each, sharing its memory; a whole tensor is itself."""
    return [x.to_local() if isinstance(x, DTensor) else x for x in tensors]


@torch.no_grad()
def average(x: Tensor) -> None:
    """Replace a tensor that every rank holds whole by its mean over ranks; one all-reduce."""
    if world_size() > 1:
        dist.all_reduce(x.div_(world_size()))


@torch.no_grad()
def whole_norms(tensors: Sequence[Tensor], like: Sequence[Tensor] | None = None) -> Tensor:
    """[P] Euclidean norms of the whole tensors, the same on every rank that holds a part.

    One all-reduce of P numbers over the ranks that the sharded ones are spread over, none where
    all are whole. like: tensors that are spread in the same way, where `tensors` are what is here
    of each; None is the tensors themselves.

    Raises ValueError for tensors that are sharded over different ranks.
    """
    like = tensors if like is None else like
    norms_P = torch.stack(torch._foreach_norm(local_shards(tensors)))
    groups = [_spread_over(x) for x in like]
    spread = {group for group in groups if group is not None}
    if not spread:
        return norms_P
    if len(spread) > 1:
        raise ValueError("the norms of tensors that are sharded over different ranks")
    squares_P = norms_P.square()
    dist.all_reduce(squares_P, group=spread.pop())
    whole_P = squares_P.sqrt()
    if None not in groups:
        return whole_P
    return torch.stack([whole_P[i] if group else norms_P[i] for i, group in enumerate(groups)])


@torch.no_grad()
def spread_like(x: Tensor, like: Tensor | None) -> Tensor:
    """This rank's part of a whole tensor that all ranks hold, if `like`, of its shape, is spread.

    Anything else is as it is. Nothing is exchanged.
    """
    if not isinstance(like, DTensor) or isinstance(x, DTensor) or x.shape != like.shape:
        return x
    here = x.to(like.device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


def _spread_over(x: Tensor) -> dist.ProcessGroup | None:
    """The ranks that hold one part each; None where a rank holds all."""
    if not isinstance(x, DTensor):
        return None
    splits = [i for i, placement in enumerate(x.placements) if placement.is_shard()]
    if len(splits) > 1:
        raise ValueError(f"a tensor sharded twice, {x.placements}: its norm is not known here")
    return x.device_mesh.get_group(splits[0]) if splits else None
