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

import numpy as np
import numpy.typing as npt

from lightning_rad.randomness import hash64

Ints = npt.NDArray[np.int64]


class Order:
    """The endless order of the units of one set of shards.

    shard_U: shard of each unit, ascending: [N]. groups: G, the canonical groups. window: units
    among which a run is shuffled. separation: least distance between two occurrences of a unit,
    min(N / 3, 16384) by default.

    Memory is 4 bytes a unit and data epoch, four data epochs at most; 700,000 units take about a
    third of a second a data epoch.
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
        self._starts = np.flatnonzero(np.diff(shard_U, prepend=-1))
        self._sizes = np.diff(self._starts, append=self.units)
        self._raw = lru_cache(maxsize=2)(self._make_raw)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def take(self, positions: Ints) -> tuple[Ints, Ints]:
        """The (data epoch, unit) at each of some positions, in their order."""
        epochs, places = np.divmod(positions, self.units)
        units = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            units[here] = self._epoch(int(epoch))[places[here]]
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

    def _make_epoch(self, epoch: int) -> npt.NDArray[np.int32]:
        """Data epoch `epoch` after the exchange at its seam with the one before."""
        order = self._raw(epoch)
        return order if epoch == 0 else self._exchange(order.copy(), self._raw(epoch - 1))

    def _make_raw(self, epoch: int) -> npt.NDArray[np.int32]:
        """Steps 1 to 4: data epoch `epoch` without regard to its neighbours."""
        n, g = self.units, self.groups
        shards = np.argsort(hash64("shards", self.seed, epoch, self._shard_ids), kind="stable")
        sizes = self._sizes[shards]
        ends = np.cumsum(sizes)
        row = np.arange(n) + np.repeat(self._starts[shards] - (ends - sizes), sizes)

        first = np.arange(g)
        lengths = np.maximum(0, -(-(n - first) // g))
        begins = np.cumsum(lengths) - lengths
        place = np.arange(n) - np.repeat(begins, lengths)
        windows = -(-lengths // self.window)
        blocks = np.repeat(np.cumsum(windows) - windows, lengths) + place // self.window
        keys = hash64("units", self.seed, epoch, row) >> np.uint64(24)
        keys |= blocks.astype(np.uint64) << np.uint64(40)
        shuffled = row[np.argsort(keys, kind="stable")]

        order = np.empty(n, np.int32)
        order[np.repeat(first, lengths) + place * g] = shuffled
        return order

    def _exchange(
        self, order: npt.NDArray[np.int32], before: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int32]:
        """Step 5. A unit that came up too recently trades places with one that did not.

        Partners lie in the middle of the data epoch, so its last `separation` places, which the
        next seam looks at, are those of the raw order: no seam depends on another one. They are
        taken from the same group, nearest first, and from any group where that has none left.
        """
        n, d, g = self.units, self.separation, self.groups
        since = np.full(n, n, np.int64)
        since[before[n - d :]] = np.arange(d, 0, -1)
        early = np.flatnonzero(since[order[:d]] + np.arange(d) < d)
        free = d + np.flatnonzero(since[order[d : n - d]] == n)

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
        a = np.concatenate([*takers, rest])
        b = np.concatenate([taken, spare])
        order[a], order[b] = order[b], order[a]
        return order

    @cached_property
    def _shard_ids(self) -> Ints:
        return np.arange(len(self._starts), dtype=np.int64)
