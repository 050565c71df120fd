"""The order in which units are read: one endless concatenation of permutations, exactly known.

A *data epoch* is a permutation of all N units of a set; the order is data epoch 0, 1, 2 ... laid
end to end, and a *position* is a place in it. Position p belongs to canonical group p mod G. All
of it is a pure function of (seed, shards, groups, window, separation): neither the number of ranks
nor of threads nor the batch size enters, so any of them may change between two runs.

How a data epoch is made, all of it from one counter-based hash:

1. the shards are permuted and their units laid in a row;
2. the row is cut into G contiguous runs, one a group, so a group reads few shards, in sequence;
3. a run is shuffled within windows of `window` units, across the borders of its shards;
4. the runs are dealt out round robin: place q of the data epoch comes from run q mod G, so that
   the positions of one group, p mod G, read one run a data epoch;
5. at the seam of two data epochs units are exchanged until any two occurrences of a unit are at
   least `separation` positions apart, so no batch of up to that size holds a unit twice.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from lightning_rad.randomness import hash64

Ints = npt.NDArray[np.int64]

_LEAST: Final = 4096
"""Units that are made at a time, at least: several windows where these are small."""


class Order:
    """The endless order of the units of one set of shards.

    shard_U: shard of each unit, ascending: [N]. groups: G, the canonical groups. window: units
    among which a run is shuffled. separation: least distance between two occurrences of a unit,
    min(N / 3, 16384) by default.

    Windows are made when one is first read, 4 bytes a unit, and the last few of each group are
    kept: a start, a resume and a seam take as long for any set, but for permuting its shards.
    """

    def __init__(
        self,
        shard_U: npt.NDArray[np.integer],
        *,
        seed: int,
        groups: int,
        window: int,
        separation: int | None = None,
    ) -> None:
        self.units = len(shard_U)
        if groups < 1 or window < 1:
            raise ValueError(f"groups and window must be at least 1, got {groups} and {window}")
        if self.units < 3:
            raise ValueError(f"an order needs at least 3 units, the shards hold {self.units}")
        most = self.units // 3
        self.separation = min(most, 16384) if separation is None else separation
        if not 1 <= self.separation <= most:
            raise ValueError(
                f"data.shuffle.separation must lie in 1 .. {most} (a third of the {self.units} "
                f"units), got {separation}"
            )
        self.seed, self.groups, self.window = seed, groups, window
        self._starts = np.append(0, np.flatnonzero(shard_U[1:] != shard_U[:-1]) + 1)
        self._sizes = np.diff(self._starts, append=self.units)
        self._span = window * max(1, _LEAST // window)
        self._row = lru_cache(maxsize=4)(self._make_row)
        self._windows = lru_cache(maxsize=4 * groups)(self._make_windows)
        self._exchanged = lru_cache(maxsize=4)(self._exchange)

    def take(self, positions: Ints) -> tuple[Ints, Ints]:
        """The (data epoch, unit) at each of some positions, in their order."""
        epochs, places = np.divmod(positions, self.units)
        units = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            units[here] = self._epoch(epoch, places[here])
        return epochs, units

    def rows(self, position: int, batch: int, rank: int, ranks: int) -> Ints:
        """Positions of a rank's rows in the global batch [position, position + batch): by group.

        A rank serves G / ranks contiguous groups. Concatenated over ranks, the rows are the same
        whatever the number of ranks. position and batch are multiples of G, G of `ranks`.
        """
        mine = self.groups // ranks
        groups = np.arange(rank * mine, (rank + 1) * mine, dtype=np.int64)
        turns = np.arange(batch // self.groups, dtype=np.int64) * self.groups
        return position + (groups[:, None] + turns[None, :]).ravel()

    def _epoch(self, epoch: int, places: Ints) -> Ints:
        """The units at some places of a data epoch, after the exchange at its seam."""
        units = self._raw(epoch, places)
        if epoch:
            moved, instead = self._exchanged(epoch)
            hit, at = _among(moved, places)
            units[hit] = instead[at[hit]]
        return units

    def _raw(self, epoch: int, places: Ints) -> Ints:
        """Steps 1 to 4: the units at some places without regard to the neighbours."""
        turn, group = np.divmod(places, self.groups)
        part, inside = np.divmod(turn, self._span)
        wanted = part * self.groups + group
        by_windows = np.argsort(wanted, kind="stable")
        firsts = np.flatnonzero(np.diff(wanted[by_windows], prepend=-1))
        units = np.empty_like(places)
        for here in np.split(by_windows, firsts[1:]) if len(places) else ():
            windows = self._windows(epoch, int(group[here[0]]), int(part[here[0]]))
            units[here] = windows[inside[here]]
        return units

    def _make_row(self, epoch: int) -> tuple[Ints, Ints]:
        """Step 1: where each shard of the row ends, and what to add to a place to get its unit."""
        shards = np.argsort(hash64("shards", self.seed, epoch, self._shard_ids), kind="stable")
        sizes = self._sizes[shards]
        ends = np.cumsum(sizes)
        return ends, self._starts[shards] - (ends - sizes)

    def _make_windows(self, epoch: int, group: int, part: int) -> npt.NDArray[np.int32]:
        """Steps 2 and 3: the units of a part of a group's run, some whole windows."""
        least, more = divmod(self.units, self.groups)
        begin, length = group * least + min(group, more), least + (group < more)
        place = np.arange(part * self._span, min((part + 1) * self._span, length))
        ends, added = self._row(epoch)
        row = begin + place
        row += added[np.searchsorted(ends, row, side="right")]
        keys = hash64("units", self.seed, epoch, row) >> np.uint64(24)
        keys |= (place // self.window - place[0] // self.window).astype(np.uint64) << np.uint64(40)
        return row[np.argsort(keys, kind="stable")].astype(np.int32)

    def _exchange(self, epoch: int) -> tuple[Ints, Ints]:
        """Step 5: the places of a data epoch where something else stands than in `_raw`, and what.

        A unit that came up too recently trades places with one that did not. Partners lie in the
        middle of the data epoch, so its last `separation` places, which the next seam looks at, are
        those of the raw order: no seam depends on another one. They are taken from the same group,
        nearest first, and from any group where that has none left.
        """
        n, d, g = self.units, self.separation, self.groups
        last = self._raw(epoch - 1, np.arange(n - d, n))
        by_unit = np.argsort(last)

        recent, at = _among(last[by_unit], self._raw(epoch, np.arange(d)))
        since = np.where(recent, d - by_unit[at], n)
        early = np.flatnonzero(since + np.arange(d) < d)
        wanted = np.bincount(early % g, minlength=g)
        reach = min(n - d, d + _LEAST)
        while True:  # most often the partners are near
            places = np.arange(d, reach)
            free = places[~_among(last[by_unit], self._raw(epoch, places))[0]]
            if reach == n - d or (np.bincount(free % g, minlength=g) >= wanted).all():
                break
            reach = min(n - d, d + 4 * (reach - d))

        group_of_early, group_of_free = early % g, free % g
        takers, partners = [], []
        for group in np.unique(group_of_early):
            own, theirs = early[group_of_early == group], free[group_of_free == group]
            count = min(len(own), len(theirs))
            takers.append(own[:count])
            partners.append(theirs[:count])
        taken = np.concatenate([*partners, free[:0]])
        rest = np.setdiff1d(early, np.concatenate([*takers, early[:0]]))
        spare = np.setdiff1d(free, taken)[: len(rest)]
        a, b = np.concatenate([*takers, rest]), np.concatenate([taken, spare])
        moved, origin = np.concatenate([a, b]), np.concatenate([b, a])
        in_order = np.argsort(moved)
        return moved[in_order], self._raw(epoch, origin[in_order])

    @cached_property
    def _shard_ids(self) -> Ints:
        return np.arange(len(self._starts), dtype=np.int64)


def _among(ascending: Ints, wanted: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which of some numbers are among others, and where those are; elsewhere any place."""
    if not len(ascending):
        return np.zeros(len(wanted), np.bool_), np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return ascending[at] == wanted, at
