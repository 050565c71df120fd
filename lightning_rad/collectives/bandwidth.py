"""How fast an all-reduce is, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist

from lightning_rad.collectives.ranks import world_size


def all_reduce_rates(
    sizes: Sequence[int], device: torch.device, *, repeats: int = 5
) -> dict[int, float]:
    """Bytes -> bytes a second over each rank's link, of the default group, the slowest rank's.

    The rate is the bus bandwidth of nccl-tests, 2 (W - 1) / W times bytes over seconds: what a ring
    sends and receives, so that it can be held against a link's. Every rank has to call it.
    """
    factor = 2 * (world_size() - 1) / world_size()
    rates = {}
    for size in sizes:
        x = torch.ones(size // 4, device=device)
        dist.all_reduce(x)  # makes connections
        _settle(device)
        dist.barrier()
        began = time.perf_counter()
        for _ in range(repeats):
            dist.all_reduce(x)
        _settle(device)
        slowest = torch.tensor([time.perf_counter() - began], device=device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        rates[size] = factor * size * repeats / float(slowest)
    return rates


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
