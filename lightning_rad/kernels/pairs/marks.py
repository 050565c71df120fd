"""Which keys are positives of a row, or inadmissible to it, a block of similarities at a time.

Few blocks hold any but a row's own key, and which of them do is told for all of them at once: no
block has to look.

Shape letters: N rows, M keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rad.kernels.pairs import Pairs


class Mark(NamedTuple):
    """Of a block: own, the diagonal where a row meets itself, None where it does not.

    positive: 1 where a key is a positive, else 0, as logits are; None where all would be 0.
    left_out: bool, where a key is inadmissible, own apart; None where all would be False.
    """

    own: int | None
    positive: Tensor | None
    left_out: Tensor | None


class Marks:
    """The marks of every block of a side."""

    def __init__(self, pairs: Pairs, side: int) -> None:
        self.own = pairs.own
        self.ids = _Labels(pairs, pairs.x_ids_N, pairs.y_ids_M, side)
        self.groups: _Labels | None = None
        if pairs.x_groups_N is not None and pairs.y_groups_M is not None:
            unknown_N = pairs.x_groups_N == 0
            self.groups = _Labels(pairs, pairs.x_groups_N, pairs.y_groups_M, side, unknown_N)

    def of(self, rows: slice, keys: slice) -> Mark:
        """Those of a block."""
        high, wide = rows.stop - rows.start, keys.stop - keys.start
        diagonal = self.own + rows.start - keys.start
        own = diagonal if self.own >= 0 and -high < diagonal < wide else None
        themselves = 0 if own is None else min(high, wide, high + own, wide - own)
        positive = left_out = None
        if self.ids.equal_in(rows, keys) > themselves:
            positive = self.ids.equal(rows, keys)
            if own is not None:
                positive.diagonal(own).fill_(0)
        if self.groups is not None and self.groups.equal_in(rows, keys) > 0:
            left_out = self.groups.equal(rows, keys) > self.ids.equal(rows, keys)
        return Mark(own, positive, left_out)


class _Labels:
    """Labels, numbered from 1: numbers compare fast as floats, which hold 2^24 of them."""

    def __init__(
        self, pairs: Pairs, x_N: Tensor, y_M: Tensor, side: int, unknown_N: Tensor | None = None
    ) -> None:
        """unknown_N: rows whose label says nothing and equals no key's."""
        both = y_M if pairs.symmetric else torch.cat([y_M, x_N])
        numbers = torch.unique(both, return_inverse=True)[1] + 1
        self.side = side
        numbers = numbers.to(pairs.scale.dtype)
        self.x_N, self.y_M = numbers[-len(x_N) :], numbers[: len(y_M)]
        if unknown_N is not None:
            self.x_N = self.x_N.masked_fill(unknown_N, 0)
        self.counts = self._counted()

    def equal(self, rows: slice, keys: slice) -> Tensor:
        """1 where labels are equal, else 0."""
        x_N1, y_M = self.x_N[rows, None], self.y_M[keys]
        return torch.eq(x_N1, y_M, out=x_N1.new_empty(len(x_N1), len(y_M)))

    def equal_in(self, rows: slice, keys: slice) -> int:
        """How many pairs of equal labels a block holds."""
        pairs: int = self.counts[rows.start // self.side][keys.start // self.side]
        return pairs

    def _counted(self) -> list[list[int]]:
        y_M, found = self.y_M.long(), []
        for x_N in self.x_N.long().split(self.side):
            equal_M = torch.bincount(x_N, minlength=len(self.x_N) + len(y_M) + 1)[y_M]
            found.append(pad(equal_M, (0, -len(y_M) % self.side)).view(-1, self.side).sum(1))
        counts: list[list[int]] = torch.stack(found).tolist()
        return counts
