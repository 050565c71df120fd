"""How surprising a report is, word after word.

Shape letters: B reports, T tokens, C words of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_rad.schema import PADDING


def captioning(logits_BTC: Tensor, tokens_BT: Tensor) -> Tensor:
    """[B] negative log-likelihood in nats of each report's tokens but the first, summed.

    Logits at a position are those of the token at the next one (teacher forcing; `captioning.py` of
    funnyzhou/REFERS, which takes the mean over tokens). tokens_BT: int64, -1 where a report has
    ended: counted neither here nor by `counted`. Unknown words do count; there they share their
    number with the padding and are left out. In float32, or float64 where logits are; autocast does
    not reach it.
    """
    with torch.autocast(logits_BTC.device.type, enabled=False):
        logits_BTC = logits_BTC if logits_BTC.dtype == torch.float64 else logits_BTC.float()
        # the last position predicts nothing; it stays, for to cut it would copy the logits
        next_BT = torch.cat([tokens_BT[:, 1:], torch.full_like(tokens_BT[:, :1], PADDING)], dim=1)
        each = cross_entropy(
            logits_BTC.flatten(0, 1), next_BT.flatten(), ignore_index=PADDING, reduction="none"
        )
        return each.view_as(next_BT).sum(1)


def counted(tokens_BT: Tensor) -> Tensor:
    """[B] int64, the tokens of each report that `captioning` sums over."""
    return (tokens_BT[:, 1:] != PADDING).sum(1)
