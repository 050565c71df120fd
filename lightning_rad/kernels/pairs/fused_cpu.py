"""Sums and gradients a cache-sized block of similarities at a time, in plain torch.

Where the keys are the rows themselves the matrix is symmetric and only its upper triangle of
blocks is made, forward and backward. Backward makes one exponential an element:
w_i exp(s - lse_i) + v_j exp(s - lse_j) = E (a_i + b_j), E = exp(s - 1/t), a = w exp(1/t - lse).
E needs no maximum, since 1/t bounds the logits of unit rows, so that sums of blocks add up; below
the temperature where E leaves the range of the type log-sum-exps are joined instead.

bfloat16 rows multiply in bfloat16 with float32 sums where the processor can (AMX).

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Pairs, Sums, Weights
from lightning_rad.kernels.rows import Rows, prepared, products_of

BLOCK = 512
"""Side of a block: 1 MiB in float32, inside a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Logits of some rows against some keys, -inf where a key is inadmissible.

    positive: [rows, keys], None where all would be False. mirrored: whether the keys take what the
    block says about them, too.
    """

    rows: slice
    keys: slice
    logits: Tensor
    positive: Tensor | None
    mirrored: bool


def sums(pairs: Pairs, both: bool) -> tuple[Sums, Sums]:
    """Of the rows and, if both, of the keys; else, or where the keys are the rows, the same."""
    rows = _Totals(pairs, len(pairs.x_ND))
    keys = _Totals(pairs, len(pairs.y_MD)) if both and not pairs.symmetric else rows
    with products_of(pairs.x_ND):
        for block in _blocks(pairs, prepared(pairs.x_ND), prepared(pairs.y_MD), both):
            rows.attract(block.rows, block, 1)
            if block.mirrored:
                keys.attract(block.keys, block, 0)
            if pairs.in_range:
                block.logits.sub_(pairs.scale).exp_()
            rows.repel(block.rows, block, 1)
            if block.mirrored:
                keys.repel(block.keys, block, 0)
    return rows.sums(), keys.sums()


def gradients(
    pairs: Pairs, of_rows: Weights, of_keys: Weights, both: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients [N, D] in the rows, [M, D] in the keys (if both), as they came, and in 1/t.

    That of 1/t, 0-d, is the rows' share: sum_ij W_ij s_ij t.
    """
    x, y = prepared(pairs.x_ND), prepared(pairs.y_MD)
    a_N1, b_M = _per_exponential(pairs, of_rows)[:, None], _per_exponential(pairs, of_keys)
    dx_ND = torch.zeros_like(x.operand_ND)
    dy_MD = torch.zeros_like(y.operand_ND) if both and not pairs.symmetric else dx_ND
    with products_of(pairs.x_ND):
        for block in _blocks(pairs, x, y, both):
            rows, keys, w = block.rows, block.keys, block.logits
            if pairs.in_range:
                w.sub_(pairs.scale).exp_().mul_(a_N1[rows] + b_M[keys])
            else:
                as_key = (w - of_keys.lse_N[keys]).exp_().mul_(b_M[keys])
                w.sub_(of_rows.lse_N[rows, None]).exp_().mul_(a_N1[rows]).add_(as_key)
            if block.positive is not None:
                share = of_rows.share_N[rows, None] + of_keys.share_N[keys]
                w.sub_(share.where(block.positive, 0.0))
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
        self.pairs = pairs
        like = pairs.scale
        self.total = (
            like.new_zeros(count) if pairs.in_range else like.new_full((count,), -torch.inf)
        )
        self.attraction = like.new_zeros(count)
        self.positives = like.new_zeros(count)

    def attract(self, where: slice, block: _Block, dim: int) -> None:
        if block.positive is not None:
            self.attraction[where] += block.logits.where(block.positive, 0.0).sum(dim)
            self.positives[where] += block.positive.sum(dim)

    def repel(self, where: slice, block: _Block, dim: int) -> None:
        if self.pairs.in_range:
            self.total[where] += block.logits.sum(dim)
        else:
            joined = torch.logaddexp(self.total[where], block.logits.logsumexp(dim))
            self.total[where] = joined

    def sums(self) -> Sums:
        lse = self.total.log() + self.pairs.scale if self.pairs.in_range else self.total
        return Sums(lse, self.attraction, self.positives)


def _per_exponential(pairs: Pairs, weights: Weights) -> Tensor:
    if not pairs.in_range:
        return weights.weight_N
    return weights.weight_N * (pairs.scale - weights.lse_N).exp()


def _blocks(pairs: Pairs, x: Rows, y: Rows, both: bool) -> Iterator[_Block]:
    exact = x.factor_N is not None
    left_ND = x.operand_ND if exact else x.operand_ND * pairs.scale
    room = left_ND.new_empty(BLOCK * BLOCK)
    for first in range(0, len(left_ND), BLOCK):
        rows = slice(first, min(first + BLOCK, len(left_ND)))
        for start in range(first if pairs.symmetric else 0, len(y.operand_ND), BLOCK):
            keys = slice(start, min(start + BLOCK, len(y.operand_ND)))
            shape = rows.stop - rows.start, keys.stop - keys.start
            logits = room[: shape[0] * shape[1]].view(shape)
            torch.mm(left_ND[rows], y.operand_ND[keys].T, out=logits)
            if x.factor_N is not None and y.factor_N is not None:
                logits.mul_((x.factor_N[rows] * pairs.scale)[:, None]).mul_(y.factor_N[keys])
            positive = _marked(pairs, rows, keys, logits)
            yield _Block(rows, keys, logits, positive, rows != keys if pairs.symmetric else both)


def _marked(pairs: Pairs, rows: slice, keys: slice, logits: Tensor) -> Tensor | None:
    """Put -inf where a key is inadmissible; which keys are positives, None if there is none."""
    x_ids, y_ids = pairs.x_ids_N[rows], pairs.y_ids_M[keys]
    own = pairs.own + rows.start - keys.start if pairs.own >= 0 else len(y_ids)
    if -len(x_ids) < own < len(y_ids):
        logits.diagonal(own).fill_(-torch.inf)
    if pairs.x_groups_N is not None and pairs.y_groups_M is not None:
        x_groups, y_groups = pairs.x_groups_N[rows], pairs.y_groups_M[keys]
        shared = torch.isin(x_groups, y_groups) & (x_groups != 0)
        if shared.any():  # few blocks hold two rows of a group
            same_group = (x_groups[:, None] == y_groups) & shared[:, None]
            logits.masked_fill_(same_group & (x_ids[:, None] != y_ids), -torch.inf)
    positive: Tensor | None = None
    if torch.isin(x_ids, y_ids).any():  # few blocks hold two rows of an id
        positive = x_ids[:, None] == y_ids
        if -len(x_ids) < own < len(y_ids):
            positive.diagonal(own).fill_(False)
    return positive
