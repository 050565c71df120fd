"""What rank 0 holds, on every rank."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rad.collectives.ranks import world_size


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Fill the tensors, in place, with those of rank 0; one collective each, none on one process.

    Shapes, dtypes and order must be the same on every rank.
    """
    if world_size() > 1:
        for x in tensors:
            dist.broadcast(x, src=0)
