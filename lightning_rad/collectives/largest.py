"""The largest of what the ranks hold, without a wait of the host while the device has work."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rad.collectives.ranks import world_size


class Largest:
    """Begins to find the largest of a number over ranks: one all-reduce of 4 bytes.

    What is queued on the device between the making and `read` runs meanwhile: on a GPU the answer
    reaches the host on a stream of its own, and `read` waits for that stream only. No collective
    on one process. Every rank must make it, at the same place among its collectives.

    number: a tensor of one element, at most 2 ** 31 - 1; it is read as an integer.
    """

    @torch.no_grad()
    def __init__(self, number: Tensor) -> None:
        self._number = number.detach().to(torch.int32).reshape(1).clone()  # outlives the copy
        self._work = None
        if world_size() > 1:
            self._work = dist.all_reduce(self._number, op=dist.ReduceOp.MAX, async_op=True)
        self._arrived: torch.cuda.Event | None = None
        if self._number.is_cuda:
            self._send_home()

    def _send_home(self) -> None:
        device = self._number.device
        side = _side_stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        self._home = torch.empty(1, dtype=torch.int32, pin_memory=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            if self._work is not None:
                self._work.wait()  # the stream waits, not the host
            self._home.copy_(self._number, non_blocking=True)
            self._arrived.record(side)

    def read(self) -> int:
        """The largest, the same on all ranks; waits for it."""
        if self._arrived is not None:
            self._arrived.synchronize()
            return int(self._home)
        if self._work is not None:
            self._work.wait()
        return int(self._number)


@lru_cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
