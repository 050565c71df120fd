"""The definition: dense, N x K, in plain torch; every other form is tested against it.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_row_loss(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    *,
    scale: Tensor,
    offset: int | None,
) -> Tensor:
    """The loss of each row, [N], of unit rows, with scale 1 / t; see the package's function."""
    attraction_N = (query_ND * positive_ND).sum(1) * scale
    logits_NK = query_ND @ keys_KD.T * scale
    if offset is not None:
        rows_N = torch.arange(len(query_ND), device=query_ND.device) + offset
        own_NK = rows_N[:, None] == torch.arange(len(keys_KD), device=query_ND.device)
        logits_NK = logits_NK.masked_fill(own_NK, -torch.inf)
    return torch.logaddexp(attraction_N, logits_NK.logsumexp(1)) - attraction_N
