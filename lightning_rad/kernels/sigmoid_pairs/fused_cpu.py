"""One pass over the pairs that gives the loss and every gradient, a cache-sized block at a time.

With x_ij = s_ij / t + b and y_ij = 1 for pairs that belong together, else -1, the loss is
sum_ij softplus(-y x) and its gradient in x is g = -y sigmoid(-y x). A pair needs no other pair, so
one block of x serves loss and gradients: sum_j g_ij k_j / t of row i, sum_i g_ij q_i / t of key j,
sum g s of 1/t and sum g of b; backward only scales them. Sums over pairs simply add up: where keys
come in pieces, so do results. y is applied before the softplus, never as a difference after it:
the loss of a pair that is told apart is exp(-x), far below the rounding of x.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_rad.kernels.sigmoid_pairs.reference import Side

ROWS, KEYS = 512, 512
"""One block of logits: 1 MiB in float32, inside a core's second-level cache."""

LINEAR = 40.0
"""Logit from which softplus(x) is x, in float64, too; torch's default of 20 is off by 2e-9."""


class Sums(NamedTuple):
    """The loss, 0-d, and its gradients: in unit rows [N, D] and keys [M, D], 1/t and b, 0-d.

    That in keys has no rows where it was not asked for.
    """

    loss: Tensor
    to_row_ND: Tensor
    to_key_MD: Tensor
    to_scale: Tensor
    to_bias: Tensor


def one_pass(rows: Side, keys: Side, scale: Tensor, bias: Tensor, *, keys_too: bool) -> Sums:
    """Loss and gradients; scale: 1 / t, 0-d; bias: b, 0-d."""
    row_ND, key_MD = rows.unit_ND, keys.unit_ND
    loss_N, to_bias_N = torch.zeros_like(row_ND[:, 0]), torch.zeros_like(row_ND[:, 0])
    to_row_ND = torch.zeros_like(row_ND)
    to_key_MD = torch.zeros_like(key_MD) if keys_too else key_MD[:0].clone()
    logit_row_ND = row_ND * scale
    room = row_ND.new_empty(min(ROWS, len(row_ND)) * min(KEYS, len(key_MD)))
    for first in range(0, len(row_ND), ROWS):
        here = slice(first, first + ROWS)
        for start in range(0, len(key_MD), KEYS):
            there = slice(start, start + KEYS)
            shape = len(row_ND[here]), len(key_MD[there])
            block = room[: shape[0] * shape[1]].view(shape)
            torch.mm(logit_row_ND[here], key_MD[there].T, out=block)
            sign = _apply_labels(block.add_(bias), rows.part(here), keys.part(there))
            loss_N[here] += softplus(block, threshold=LINEAR).sum(1)
            gradient = block.sigmoid_() if sign is None else block.sigmoid_().mul_(sign)
            to_bias_N[here] += gradient.sum(1)
            to_row_ND[here].addmm_(gradient, key_MD[there])
            if keys_too:
                to_key_MD[there].addmm_(gradient.T, row_ND[here])
    to_scale = (row_ND * to_row_ND).sum()
    return Sums(
        loss_N.sum(), to_row_ND.mul_(scale), to_key_MD.mul_(scale), to_scale, to_bias_N.sum()
    )


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
