"""Sums and gradients a cache-sized block of similarities at a time, in plain torch.

Where the keys are the rows themselves the matrix is symmetric and only its upper triangle of
blocks is made, forward and backward. Backward makes one exponential an element:
w_i exp(s - lse_i) + v_j exp(s - lse_j) = E (a_i + b_j), E = exp(s), a = w exp(-lse). E needs no
maximum, since 1/t bounds the logits of unit rows, so that sums of blocks add up; below the
temperature where E leaves the range of the type log-sum-exps are joined instead.

bfloat16 rows multiply in bfloat16 with float32 sums where the processor can (AMX).

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Pairs, Sums, Weights
from lightning_rad.kernels.pairs.marks import Mark, Marks
from lightning_rad.kernels.rows import Rows, prepared, products_of

BLOCK = 512
"""Side of a block: 1 MiB in float32, inside a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Logits of some rows against some keys, and as much room to write in.

    mirrored: whether the keys take what the block says about them, too.
    """

    rows: slice
    keys: slice
    logits: Tensor
    room: Tensor
    mark: Mark
    mirrored: bool

    def admitted(self) -> Tensor:
        """The logits, now -inf where a key is inadmissible."""
        if self.mark.own is not None:
            self.logits.diagonal(self.mark.own).fill_(-torch.inf)
        if self.mark.left_out is not None:
            self.logits.masked_fill_(self.mark.left_out, -torch.inf)
        return self.logits


def sums(pairs: Pairs, both: bool) -> tuple[Sums, Sums]:
    """Of the rows and, if both, of the keys; else, or where the keys are the rows, the same."""
    rows = _Totals(pairs, len(pairs.x_ND))
    keys = _Totals(pairs, len(pairs.y_MD)) if both and not pairs.symmetric else rows
    with products_of(pairs.x_ND):
        for block in _blocks(pairs, *_both_prepared(pairs), both):
            sides = [(rows, block.rows, 1), (keys, block.keys, 0)][: 1 + block.mirrored]
            if block.mark.positive is not None:
                attraction = torch.mul(block.logits, block.mark.positive, out=block.room)
                for totals, where, dim in sides:
                    totals.attract(where, attraction, block.mark.positive, dim)
            logits = block.admitted().exp_() if pairs.in_range else block.admitted()
            for totals, where, dim in sides:
                totals.repel(where, logits, dim)
    return rows.sums(), keys.sums()


def gradients(
    pairs: Pairs, of_rows: Weights, of_keys: Weights, both: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients [N, D] in the rows, [M, D] in the keys (if both), as they came, and in 1/t.

    That of 1/t, 0-d, is the rows' share: sum_ij W_ij s_ij t.
    """
    x, y = _both_prepared(pairs)
    a_N1, b_M = _per_exponential(pairs, of_rows)[:, None], _per_exponential(pairs, of_keys)
    dx_ND = torch.zeros_like(x.operand_ND)
    dy_MD = torch.zeros_like(y.operand_ND) if both and not pairs.symmetric else dx_ND
    with products_of(pairs.x_ND):
        for block in _blocks(pairs, x, y, both):
            rows, keys, w, room = block.rows, block.keys, block.admitted(), block.room
            if pairs.in_range:
                w.exp_().mul_(torch.add(a_N1[rows], b_M[keys], out=room))
            else:
                as_key = torch.sub(w, of_keys.lse_N[keys], out=room).exp_().mul_(b_M[keys])
                w.sub_(of_rows.lse_N[rows, None]).exp_().mul_(a_N1[rows]).add_(as_key)
            if block.mark.positive is not None:
                w.addcmul_(block.mark.positive, of_rows.share_N[rows, None], value=-1)
                w.addcmul_(block.mark.positive, of_keys.share_N[keys], value=-1)
            if x.factor_N is not None and y.factor_N is not None:
                w.mul_(x.factor_N[rows, None]).mul_(y.factor_N[keys])
            dx_ND[rows].addmm_(w, y.operand_ND[keys])
            if block.mirrored:
                dy_MD[keys].addmm_(w.T, x.operand_ND[rows])
    gradient_ND, along_N = x.gradient(dx_ND, pairs.scale, pairs.x_ND.dtype)
    gradient_MD = y.gradient(dy_MD, pairs.scale, pairs.y_MD.dtype)[0] if both else gradient_ND
    return gradient_ND, gradient_MD, along_N.sum()


class _Totals:
    """What adds up over blocks: exponentials, or log-sum-exps where those leave the range."""

    def __init__(self, pairs: Pairs, count: int) -> None:
        like = pairs.scale
        self.in_range = pairs.in_range
        self.total = like.new_full((count,), 0.0 if pairs.in_range else -torch.inf)
        self.attraction = like.new_zeros(count)
        self.positives = like.new_zeros(count)

    def attract(self, where: slice, attraction: Tensor, positive: Tensor, dim: int) -> None:
        self.attraction[where] += attraction.sum(dim)
        self.positives[where] += positive.sum(dim)

    def repel(self, where: slice, logits: Tensor, dim: int) -> None:
        if self.in_range:
            self.total[where] += logits.sum(dim)
        else:
            joined = torch.logaddexp(self.total[where], logits.logsumexp(dim))
            self.total[where] = joined

    def sums(self) -> Sums:
        lse = self.total.log() if self.in_range else self.total
        return Sums(lse, self.attraction, self.positives)


def _per_exponential(pairs: Pairs, weights: Weights) -> Tensor:
    if not pairs.in_range:
        return weights.weight_N
    return weights.weight_N * (-weights.lse_N).exp()


def _both_prepared(pairs: Pairs) -> tuple[Rows, Rows]:
    x = prepared(pairs.x_ND)
    return x, x if pairs.symmetric else prepared(pairs.y_MD)


def _blocks(pairs: Pairs, x: Rows, y: Rows, both: bool) -> Iterator[_Block]:
    exact = x.factor_N is not None
    left_ND = x.operand_ND if exact else x.operand_ND * pairs.scale
    few = pairs.symmetric and len(left_ND) <= 2 * BLOCK
    side = BLOCK // 2 if few else BLOCK  # so that there is a triangle to leave out
    marks = Marks(pairs, side)
    space = left_ND.new_empty(2, side * side)
    for first in range(0, len(left_ND), side):
        rows = slice(first, min(first + side, len(left_ND)))
        for start in range(first if pairs.symmetric else 0, len(y.operand_ND), side):
            keys = slice(start, min(start + side, len(y.operand_ND)))
            shape = rows.stop - rows.start, keys.stop - keys.start
            logits, room = space[:, : shape[0] * shape[1]].view(2, *shape)
            torch.mm(left_ND[rows], y.operand_ND[keys].T, out=logits)
            if x.factor_N is not None and y.factor_N is not None:
                logits.mul_((x.factor_N[rows] * pairs.scale)[:, None]).mul_(y.factor_N[keys])
            mirrored = rows != keys if pairs.symmetric else both
            yield _Block(rows, keys, logits, room, marks.of(rows, keys), mirrored)
