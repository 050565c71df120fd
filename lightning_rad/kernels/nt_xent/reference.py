"""The definition: dense, M x M, in plain torch; every other form is tested against it.

Shape letters: M rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_OUT = -1e30
"""Logit of an inadmissible key: its share of any sum is 0, and yet 0 times it is 0."""


def per_row_loss(
    z_MD: Tensor, ids_M: Tensor, groups_M: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each of M unit rows and whether it counts, [M] each; see the package."""
    logits_MM = z_MD @ z_MD.T * scale
    same_id_MM = ids_M[:, None] == ids_M
    with torch.no_grad():  # what is left out has no gradient, for its share of any sum is 0
        logits_MM.detach().diagonal().fill_(LEFT_OUT)
        if groups_M is not None:
            known_same_MM = (groups_M[:, None] == groups_M) & (groups_M != 0)
            logits_MM.detach().masked_fill_(known_same_MM & ~same_id_MM, LEFT_OUT)
        positive_MM = same_id_MM.to(logits_MM.dtype).fill_diagonal_(0)
        positives_M = positive_MM.sum(1)
    attraction_M = torch.linalg.vecdot(logits_MM.log_softmax(1), positive_MM)
    return attraction_M / -positives_M.clamp_min(1), positives_M > 0
