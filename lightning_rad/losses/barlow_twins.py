"""The loss of Barlow Twins: the cross-correlation of two views should be the identity.

Shape letters: M rows of all ranks, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import batch_norm

EPSILON = 1e-5
"""Added to the variances, as by the `BatchNorm1d` of the official code."""


def barlow_twins(a_MD: Tensor, b_MD: Tensor) -> tuple[Tensor, Tensor]:
    """Invariance sum_i (1 - C_ii)^2 and redundancy sum_i sum_{j != i} C_ij^2, not weighted.

    C_ij is the correlation over the batch of feature i of one view with feature j of the other
    (equations 1 and 2 of arXiv:2103.03230). Sums, so both grow with D. Deviations are those of
    the M rows, not of a larger population; a feature that does not vary correlates with nothing.
    Row m of a_MD and of b_MD are views of one unit; hand in the rows of all ranks, gathered with
    gradient. Computed in float32, or float64 where an input is; autocast does not reach it.
    Raises ValueError for fewer than two rows.
    """
    if len(a_MD) < 2:
        raise ValueError(
            f"Barlow Twins correlates over the global batch, which needs 2 units, not {len(a_MD)}"
        )
    with torch.autocast(a_MD.device.type, enabled=False):
        correlation_DD = _standardised(a_MD).T @ _standardised(b_MD) / len(a_MD)
        own_D = correlation_DD.diagonal()
        invariance = (1 - own_D).square().sum()
        redundancy = (correlation_DD - own_D.diag()).square().sum()
        return invariance, redundancy


def _standardised(x_MD: Tensor) -> Tensor:
    x_MD = x_MD.to(torch.promote_types(x_MD.dtype, torch.float32))
    return batch_norm(x_MD, None, None, training=True, eps=EPSILON)
