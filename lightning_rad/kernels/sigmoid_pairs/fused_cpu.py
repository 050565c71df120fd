"""One pass over the pairs that gives the loss and every gradient, a cache-sized block at a time.

With x_ij = s_ij / t + b and y_ij = 1 for pairs that belong together, else -1, the loss is
sum_ij softplus(-y x) and its gradient in x is g = -y sigmoid(-y x). A pair needs no other pair, so
one block of x serves loss and gradients: sum_j g_ij k_j / t of row i, sum_i g_ij q_i / t of key j,
sum g s of 1/t and sum g of b; backward only scales them. Sums over pairs simply add up: where keys
come in pieces, so do results. y is applied before the softplus, never as a difference after it:
the loss of a pair that is told apart is exp(-x), far below the rounding of x.

bfloat16 rows multiply in bfloat16 with float32 sums where the processor can (AMX).

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_rad.kernels.rows import Rows, prepared, products_of
from lightning_rad.kernels.sigmoid_pairs.reference import Side, Sums

ROWS, KEYS = 512, 512
"""One block of logits: 1 MiB in float32, inside a core's second-level cache."""

LINEAR = 40.0
"""Logit from which softplus(x) is x, in float64, too; torch's default of 20 is off by 2e-9."""


def one_pass(
    rows: Side, keys: Side, scale: Tensor, bias: Tensor, *, keys_too: bool, unit_keys: bool
) -> Sums:
    """Loss and gradients; scale: 1 / t, 0-d; bias: b, 0-d.

    keys_too: whether the gradient in keys is asked for. unit_keys: they are compared as they are.
    """
    x, y = prepared(rows.x_ND), _as_they_are(keys.x_ND) if unit_keys else prepared(keys.x_ND)
    loss_N, to_bias_N = torch.zeros_like(x.square_N), torch.zeros_like(x.square_N)
    to_row_ND = torch.zeros_like(x.operand_ND)
    to_key_MD = torch.zeros_like(y.operand_ND if keys_too else y.operand_ND[:0])
    with products_of(rows.x_ND):
        for here, there, logits in _blocks(x, y, scale):
            sign = _apply_labels(logits.add_(bias), rows.part(here), keys.part(there))
            loss_N[here] += softplus(logits, threshold=LINEAR).sum(1)
            g = logits.sigmoid_() if sign is None else logits.sigmoid_().mul_(sign)
            to_bias_N[here] += g.sum(1)
            _multiply(g, x.factor_N, y.factor_N, here, there)
            to_row_ND[here].addmm_(g, y.operand_ND[there])
            if keys_too:
                to_key_MD[there].addmm_(g.T, x.operand_ND[here])
    to_row_ND, along_N = x.gradient(to_row_ND, scale, scale.dtype)
    if keys_too:
        to_key_MD, _ = y.gradient(to_key_MD, scale, scale.dtype)
    return Sums(loss_N.sum(), to_row_ND, to_key_MD, along_N.sum(), to_bias_N.sum())


def _as_they_are(x_ND: Tensor) -> Rows:
    """Rows that are of unit length, and receive no gradient."""
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    return Rows(x_ND, None, x_ND[:, 0], x_ND[:, 0])


def _blocks(x: Rows, y: Rows, scale: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """s / t of some rows and some keys at a time."""
    left_ND, left_factor_N = x.operand_ND, None if x.factor_N is None else x.factor_N * scale
    if left_factor_N is None:
        left_ND = left_ND * scale
    room = left_ND.new_empty(min(ROWS, len(left_ND)) * min(KEYS, len(y.operand_ND)))
    for first in range(0, len(left_ND), ROWS):
        here = slice(first, min(first + ROWS, len(left_ND)))
        for start in range(0, len(y.operand_ND), KEYS):
            there = slice(start, min(start + KEYS, len(y.operand_ND)))
            shape = here.stop - here.start, there.stop - there.start
            logits = room[: shape[0] * shape[1]].view(shape)
            torch.mm(left_ND[here], y.operand_ND[there].T, out=logits)
            _multiply(logits, left_factor_N, y.factor_N, here, there)
            yield here, there, logits


def _multiply(
    block: Tensor, of_rows_N: Tensor | None, of_keys_M: Tensor | None, here: slice, there: slice
) -> None:
    """A block by factors of its rows and of its keys, in place."""
    if of_rows_N is not None:
        block.mul_(of_rows_N[here, None])
    if of_keys_M is not None:
        block.mul_(of_keys_M[there])


def _apply_labels(block: Tensor, rows: Side, keys: Side) -> Tensor | None:
    """Turn logits x into -y x, -inf for a pair left out; returns -y, [N, M], or None if all 1."""
    sign_NM: Tensor | None = None
    if rows.ids_N is None or keys.ids_N is None:
        return None
    if _meet(rows.ids_N, keys.ids_N):
        sign_NM = torch.where(rows.ids_N[:, None] == keys.ids_N, -1.0, 1.0).to(block.dtype)
        block.mul_(sign_NM)
    if rows.groups_N is not None and keys.groups_N is not None:
        known_N = rows.groups_N[rows.groups_N != 0]
        if _meet(known_N, keys.groups_N):
            group_N1 = rows.groups_N[:, None]
            same_group_NM = (group_N1 == keys.groups_N) & (group_N1 != 0)
            other_id_NM = rows.ids_N[:, None] != keys.ids_N
            block.masked_fill_(same_group_NM & other_id_NM, -torch.inf)
    return sign_NM


def _meet(labels_N: Tensor, others_M: Tensor) -> bool:
    """Whether any label is on both sides; most blocks have none."""
    return bool(torch.isin(labels_N, others_M).any())
