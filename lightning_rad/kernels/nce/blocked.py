"""Sums over queries and keys a block at a time, never N x K.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_rad.kernels.sigmoid_pairs import operator
from lightning_rad.kernels.sigmoid_pairs.reference import Side
from lightning_rad.kernels.unit_rows import unit_rows

ROWS, KEYS = 256, 2048
"""One block of logits: 2 MiB in float32."""


def loss_sum(
    query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, scale: Tensor, log_odds: Tensor
) -> Tensor:
    """As `reference.loss_sum`: the sigmoid loss of pairs none of which belongs together."""
    attraction_N = (unit_rows(query_ND) * positive_ND).sum(1) * scale + log_odds
    negatives = operator.pair_sum(Side(query_ND), Side(keys_KD), scale, log_odds, unit_keys=True)
    return negatives - logsigmoid(attraction_N).sum()


def logsumexp(logit_row_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor) -> Tensor:
    """0-d log of the sum of exp(row . key) over all rows, their positives and all keys."""
    blocks = product(torch.split(logit_row_ND, ROWS), torch.split(keys_KD, KEYS))
    of_keys = [(rows_ND @ block_KD.T).flatten().logsumexp(0) for rows_ND, block_KD in blocks]
    of_positives = (logit_row_ND * positive_ND).sum(1).logsumexp(0)
    return torch.stack([of_positives, *of_keys]).logsumexp(0)
