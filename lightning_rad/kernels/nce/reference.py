"""The definition: dense, N x K, in plain torch; every other form is tested against it.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_rad.kernels.unit_rows import unit_rows


def loss_sum(
    query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, scale: Tensor, log_odds: Tensor
) -> Tensor:
    """The sum over rows, 0-d, of -log P(data) of the positive and -log P(noise) of all keys.

    A key of cosine s is data by the probability sigmoid(s scale + log_odds).
    """
    unit_ND = unit_rows(query_ND)
    attraction_N = (unit_ND * positive_ND).sum(1) * scale + log_odds
    logits_NK = unit_ND @ keys_KD.to(unit_ND.dtype).T * scale + log_odds
    return -logsigmoid(attraction_N).sum() - logsigmoid(-logits_NK).sum()
