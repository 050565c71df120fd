"""The definition: dense, N x K, in plain torch; every other form is tested against it.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def loss_sum(
    unit_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, *, scale: float, log_odds: Tensor
) -> Tensor:
    """The sum over rows, 0-d, of -log P(taken for data) of the positive - log P(noise) of keys.

    A key of cosine s is data by the probability sigmoid(s scale + log_odds).
    """
    attraction_N = (unit_ND * positive_ND).sum(1) * scale + log_odds
    logits_NK = torch.mm(unit_ND, keys_KD.T) * scale + log_odds
    return -logsigmoid(attraction_N).sum() - logsigmoid(-logits_NK).sum()
