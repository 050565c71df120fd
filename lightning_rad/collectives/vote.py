"""What ranks agree on through host memory, beside the device and its collectives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from lightning_rad.collectives.ranks import world_size


class Ballot:
    """A group of all ranks over CPU (gloo), of its own: made once, by all ranks together.

    limit: how long a vote may wait for the slowest rank; a rank that died ends it at once.
    """

    def __init__(self, limit: timedelta) -> None:
        self._group: dist.ProcessGroup | None = None
        if world_size() > 1:
            group = dist.new_group(backend="gloo", timeout=limit)
            assert isinstance(group, dist.ProcessGroup)
            self._group = group

    def vote(self, numbers: Sequence[int]) -> Vote:
        """Begin to find the largest of each number over ranks; the n-th votes of all meet."""
        return Vote(numbers, self._group)

    def meet(self, limit: timedelta) -> bool:
        """Wait until all ranks are here; False where one did not come in time."""
        if self._group is None:
            return True
        try:
            work = dist.barrier(group=self._group, async_op=True)
            assert work is not None
            work.wait(limit)
        except RuntimeError:
            return False
        return True


class Vote:
    """One all-reduce of a few int32, begun when made; alone, the numbers themselves."""

    def __init__(self, numbers: Sequence[int], group: dist.ProcessGroup | None) -> None:
        self._numbers = torch.tensor(list(numbers), dtype=torch.int32)
        self._work = None
        if group is not None:
            self._work = dist.all_reduce(
                self._numbers, op=dist.ReduceOp.MAX, group=group, async_op=True
            )

    def read(self) -> list[int]:
        """The largest of each, the same on all ranks; the host waits, the device does not."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return [int(number) for number in self._numbers.tolist()]
