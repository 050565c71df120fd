"""The definition: dense, M x M, in plain torch; every other form is tested against it.

Shape letters: M rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_row_loss(
    z_MD: Tensor, ids_M: Tensor, groups_M: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each of M unit rows and whether it counts, [M] each; see the package."""
    logits_MM = z_MD @ z_MD.T * scale
    self_MM = torch.eye(len(z_MD), dtype=torch.bool, device=z_MD.device)
    same_id_MM = ids_M[:, None] == ids_M
    positive_MM = same_id_MM & ~self_MM
    positives_M = positive_MM.sum(1)
    counts_M = positives_M > 0

    left_out_MM = self_MM
    if groups_M is not None:
        known_same_MM = (groups_M[:, None] == groups_M) & (groups_M != 0)
        left_out_MM = self_MM | (known_same_MM & ~same_id_MM)

    # a row that does not count may have no admissible key: logsumexp of nothing has no gradient
    admissible_MM = logits_MM.masked_fill(left_out_MM & counts_M[:, None], -torch.inf)
    attraction_M = (logits_MM * positive_MM).sum(1) / positives_M.clamp_min(1)
    loss_M = admissible_MM.logsumexp(1) - attraction_M
    return torch.where(counts_M, loss_M, 0.0), counts_M
