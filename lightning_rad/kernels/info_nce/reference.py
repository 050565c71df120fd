"""The definition: dense, N x K, in plain torch; every other form is tested against it.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_OUT = -1e30
"""Logit of a key that is left out: its share of any sum is 0, even of a sum of nothing else."""


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
    if offset is not None:  # without gradient, for the share of what is left out is 0
        logits_NK.detach().diagonal(offset)[: len(query_ND)].fill_(LEFT_OUT)
    return torch.logaddexp(attraction_N, logits_NK.logsumexp(1)) - attraction_N
