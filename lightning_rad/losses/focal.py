"""The focal loss of findings, of which some are not known.

Shape letters: N images, C findings.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def focal(
    logits_NC: Tensor, labels_NC: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """The sum over known elements of -a (1 - p)^gamma log p, and how many they are.

    p is the probability that is given to the truth, a is alpha where that is 1 and 1 - alpha where
    it is 0: equation 5 of RetinaNet (arXiv:1708.02002), element by element. VITA-Group/CheXT
    applies it to the mean of the cross entropies, which weighs no element by itself.

    labels_NC: 1, 0 or NaN where not known, which counts nowhere and has no gradient; with nothing
    known at all the sum is 0 and still part of the graph. Computed in float32, or float64 where
    logits are, from logarithms, so that neither it nor its gradient runs over at any logit;
    autocast does not reach it.
    """
    with torch.autocast(logits_NC.device.type, enabled=False):
        logits_NC = logits_NC if logits_NC.dtype == torch.float64 else logits_NC.float()
        known_NC, positive_NC = ~labels_NC.isnan(), labels_NC == 1
        towards_NC = torch.where(positive_NC, logits_NC, -logits_NC)
        towards_NC = torch.where(known_NC, towards_NC, 0.0)
        # of the logits' kind first: a bool by a number would be float32
        present_NC = positive_NC.to(logits_NC.dtype)
        weight_NC = (present_NC * alpha + (1.0 - present_NC) * (1.0 - alpha)) * known_NC
        missed_NC = (gamma * logsigmoid(-towards_NC)).exp()
        return -(weight_NC * missed_NC * logsigmoid(towards_NC)).sum(), known_NC.sum()
