"""Which shards a rank reads next, told to sources in stores while there is time to fetch them."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.order import Order
from lightning_rad.data.source import ShardSource
from lightning_rad.data.units import Units

log = logging.getLogger(__name__)

_NEXT: Final = 4
"""Shards ahead of an evaluation, which reads them one after the other."""


class ReadAhead:
    """Tells one source the shards of a rank's rows, one window of the order ahead.

    All groups of an order enter new shards at about the same places, where their windows begin, so
    a window is the time there is to fetch them in. Not more is asked for than half of the cache
    holds, shared by the ranks; where that is less than what is read at a time, it is said once.
    """

    def __init__(
        self, source: ShardSource, order: Order, units: Units, share: int, place: tuple[int, int]
    ) -> None:
        self._source, self._order, self._units = source, order, units
        self._share, self._place = share, place
        self._horizon = min(order.window * order.groups, order.units)
        self._room = source.room / 2 / place[1]
        self._until: dict[int, int] = {}  # shard -> the last position it is known to be read at
        self._next = self._last = -1
        self._said = False

    def before(self, position: int) -> None:
        """The batch at `position` is about to be read."""
        if not self._source.room:
            return
        if not self._last <= position <= self._next:
            self._next, self._until = position, {}
        self._last = position
        self._until = {shard: last for shard, last in self._until.items() if last >= position}
        held = sum(self._source.bytes_of(shard) for shard in self._until)
        while self._next < position + self._horizon:
            if held > self._room and self._next > position:
                self._say(held, position)
                return
            for shard in self._shards_at(self._next):
                if shard not in self._until:
                    held += self._source.bytes_of(shard)
                    self._source.expect([shard])
                self._until[shard] = self._next
            self._next += self._share

    def _shards_at(self, position: int) -> list[int]:
        """The shards that the batch at `position` reads, each once, in order of its rows."""
        rows = self._order.rows(position, self._share, *self._place)
        shards = self._units.shard[self._order.take(rows)[1]]
        _, first = np.unique(shards, return_index=True)
        found: list[int] = shards[np.sort(first)].tolist()
        return found

    def _say(self, held: int, position: int) -> None:
        ahead = self._next - position
        if not self._said and ahead < self._order.groups * min(self._order.window, 64):
            log.warning(
                "data.remote.gib: the cache holds too little: %.1f GiB of shards are read within "
                "%d units by one of %d ranks; shards will be fetched more than once",
                held / 2**30,
                ahead,
                self._place[1],
            )
            self._said = True


def expect_next(source: ShardSource, shards_N: npt.NDArray[np.integer], here: int) -> None:
    """Tell a source the next few of the ascending shards that are read in order, from one on."""
    at = int(np.searchsorted(shards_N, here))
    source.expect(shards_N[at : at + _NEXT].tolist())
