"""Rows of all ranks without holding them all: they go round from rank to rank.

Shape letters: N rows of this rank, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rad.collectives.gather import gather_detached
from lightning_rad.collectives.ranks import rank, world_size

Exchange = Literal["gather", "ring"]
"""gather: the rows of all ranks at once, in one collective; ring: one rank's at a time."""


class Ring:
    """The rows of all ranks, one rank's after the other, without gradient.

    Each pass over it yields, for this rank and then for those before it, the number of a rank's
    first row among all and its rows, while the rank passes on what it works on and receives what
    comes next: ranks - 1 exchanges with its neighbours, none on one process. No more than three
    ranks' rows are held, its own among them. Every rank has to make every pass to its end.

    Rows are good until the next ones are asked for: their place is used again.
    """

    def __init__(self, x_ND: Tensor) -> None:
        """x_ND: any dtype; equal shapes on all ranks, as in `gather_rows`."""
        self.own_ND = x_ND.detach().contiguous()

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Number of the first row, rows."""
        here_ND, count = self.own_ND, len(self.own_ND)
        rooms = [torch.empty_like(self.own_ND) for _ in range(min(world_size() - 1, 2))]
        for step in range(world_size() - 1):
            next_ND = rooms[step % len(rooms)]
            under_way = _pass_on(here_ND, next_ND)
            yield (rank() - step) % world_size() * count, here_ND
            for transfer in under_way:
                transfer.wait()
            here_ND = next_ND
        yield (rank() + 1) % world_size() * count, here_ND


def exchange_rows(x_ND: Tensor, how: Exchange) -> Tensor | Ring:
    """The rows of all ranks, without gradient: [W*N, D] at once, or a ring of them.

    Raises ValueError for another word than these two.
    """
    if how not in get_args(Exchange):
        raise ValueError(f"exchange: '{how}' is not one of {list(get_args(Exchange))}")
    return Ring(x_ND) if how == "ring" else gather_detached(x_ND)


def _pass_on(x_ND: Tensor, room_ND: Tensor) -> list[dist.Work]:
    """Begin to send rows to the rank after this one and to receive those of the one before."""
    after, before = (rank() + 1) % world_size(), (rank() - 1) % world_size()
    both_ways = [dist.P2POp(dist.isend, x_ND, after), dist.P2POp(dist.irecv, room_ND, before)]
    works: list[dist.Work] = dist.batch_isend_irecv(both_ways)
    return works
