"""The definition: dense, N x M, in plain torch; every other form is tested against it.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_rad.kernels.unit_rows import unit_rows


class Side(NamedTuple):
    """Rows of one kind, images or texts, as they came, with what pairs them with the other kind.

    ids_N: int64, equal for rows that belong together; None, and nothing does. groups_N: int64; a
    row and a key of one group but not of one id are no pair at all. Group 0 is unknown.
    """

    x_ND: Tensor
    ids_N: Tensor | None = None
    groups_N: Tensor | None = None

    def part(self, rows: slice) -> Side:
        """Some of the rows."""
        ids_N, groups_N = (None if x is None else x[rows] for x in (self.ids_N, self.groups_N))
        return Side(self.x_ND[rows], ids_N, groups_N)


class Sums(NamedTuple):
    """The loss, 0-d, and its gradients: in rows [N, D] and keys [M, D] as they came, 1/t and b.

    That in keys has no rows where it was not asked for. None is rounded to the type of the rows.
    """

    loss: Tensor
    to_row_ND: Tensor
    to_key_MD: Tensor
    to_scale: Tensor
    to_bias: Tensor


def pair_sum(rows: Side, keys: Side, scale: Tensor, bias: Tensor) -> Tensor:
    """The sum over all pairs of -log sigmoid(y (s / t + b)), scale 1 / t; see the package."""
    logits_NM = unit_rows(rows.x_ND) @ unit_rows(keys.x_ND).T * scale + bias
    if rows.ids_N is None or keys.ids_N is None:
        return -logsigmoid(-logits_NM).sum()
    same_NM = rows.ids_N[:, None] == keys.ids_N
    losses_NM = -logsigmoid(torch.where(same_NM, logits_NM, -logits_NM))
    if rows.groups_N is not None and keys.groups_N is not None:
        group_N1 = rows.groups_N[:, None]
        left_out_NM = (group_N1 == keys.groups_N) & (group_N1 != 0) & ~same_NM
        losses_NM = losses_NM.masked_fill(left_out_NM, 0.0)
    return losses_NM.sum()
