"""How far predicted attention is from a reader's, row by row.

Shape letters: N rows, S side of a map.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

FLAT: Final = 1e-6
"""Deviation, as a share of a map's mean, below which it is flat: rounding, and no pattern."""


def kl_of_maps(logits_NSS: Tensor, map_NSS: Tensor) -> Tensor:
    """[N] Kullback-Leibler divergence of predicted attention from maps of sum 1, in nats.

    sum over cells of map * log(map / softmax(logits)); a cell of map 0 adds 0, and a map of all 0
    adds nothing, to the gradient neither. In float32, or float64 where logits are; autocast does
    not reach it.
    """
    with torch.autocast(logits_NSS.device.type, enabled=False):
        logits_NSS = _wide(logits_NSS)
        map_NC = map_NSS.to(logits_NSS.dtype).flatten(1)
        predicted_NC = logits_NSS.flatten(1).log_softmax(1)
        return (torch.xlogy(map_NC, map_NC) - map_NC * predicted_NC).sum(1)


def correlation(p_NSS: Tensor, q_NSS: Tensor) -> Tensor:
    """[N] Pearson's correlation over the cells of two maps, -1 to 1.

    A flat map has correlation 0 and a finite gradient. In float32, or float64 where the first is.
    """
    with torch.autocast(p_NSS.device.type, enabled=False):
        p_NSS = _wide(p_NSS)
        q_NSS = q_NSS.to(p_NSS.dtype)
        return (_standing_out(p_NSS) * _standing_out(q_NSS)).sum(1)


def _standing_out(map_NSS: Tensor) -> Tensor:
    """[N, C] deviation from the mean, of length 1, or less where there is next to none."""
    map_NC = map_NSS.flatten(1)
    # densities of many cells are tiny: a correlation does not depend on the scale, rounding does
    scale_N1 = map_NC.detach().abs().mean(1, keepdim=True)
    map_NC = map_NC / scale_N1.clamp_min(torch.finfo(map_NC.dtype).tiny)
    off_NC = map_NC - map_NC.mean(1, keepdim=True)
    squared_N1 = off_NC.square().sum(1, keepdim=True)
    return off_NC * squared_N1.clamp_min(FLAT**2 * map_NC.shape[1]).rsqrt()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
