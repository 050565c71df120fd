"""The definition: dense, M x M, in plain torch; every other form is tested against it.

Shape letters: M rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


LEFT_OUT = -1e30
"""Added to the logit of an inadmissible key: its share of any sum is 0, and yet 0 times it is 0."""


def per_row_loss(
    z_MD: Tensor, ids_M: Tensor, groups_M: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each of M unit rows and whether it counts, [M] each; see the package."""
    same_id_MM = ids_M[:, None] == ids_M
    left_out_MM = z_MD.new_zeros(len(z_MD), len(z_MD)).fill_diagonal_(LEFT_OUT)
    if groups_M is not None:
        known_same_MM = (groups_M[:, None] == groups_M) & (groups_M != 0)
        left_out_MM.masked_fill_(known_same_MM & ~same_id_MM, LEFT_OUT)
    positive_MM = same_id_MM.to(z_MD.dtype).fill_diagonal_(0)
    positives_M = positive_MM.sum(1)

    log_p_MM = torch.addmm(left_out_MM, z_MD * scale, z_MD.T).log_softmax(1)
    loss_M = (log_p_MM * positive_MM).sum(1) / -positives_M.clamp_min(1)
    return loss_M, positives_M > 0
