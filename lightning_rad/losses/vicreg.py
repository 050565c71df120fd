"""The three terms of VICReg (arXiv:2105.04906), not weighted.

All take the rows of all ranks, gathered with gradient, compute in float32, or float64 where an
input is, out of autocast's reach, and raise ValueError for fewer than two rows.

Shape letters: M rows of all ranks, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the variances under the root, by paper and official code."""


def invariance(a_MD: Tensor, b_MD: Tensor) -> Tensor:
    """The mean over rows and features of (a - b)^2; row m of both is of one unit.

    By the official code; equation 5 divides by the number of rows alone.
    """
    with torch.autocast(a_MD.device.type, enabled=False):
        return (_wide(a_MD) - _wide(b_MD)).square().mean()


def variance(z_MD: Tensor) -> Tensor:
    """Mean over features of max(0, 1 - sqrt(Var + 1e-4)); 0 to 0.99.

    Equations 1 and 2 with a target deviation of 1; Var is the unbiased variance of one view.
    """
    with torch.autocast(z_MD.device.type, enabled=False):
        deviation_D = (_wide(z_MD).var(dim=0) + EPSILON).sqrt()
        return (1 - deviation_D).clamp_min(0).mean()


def covariance(z_MD: Tensor) -> Tensor:
    """The sum of the squared covariances of different features, over D.

    Equations 3 and 4, the covariances of one view being the unbiased ones.
    """
    with torch.autocast(z_MD.device.type, enabled=False):
        z_MD = _wide(z_MD)
        centred_MD = z_MD - z_MD.mean(dim=0)
        covariance_DD = centred_MD.T @ centred_MD / (len(z_MD) - 1)
        off_diagonal_DD = covariance_DD - covariance_DD.diagonal().diag()
        return off_diagonal_DD.square().sum() / z_MD.shape[1]


def _wide(z_MD: Tensor) -> Tensor:
    if len(z_MD) < 2:
        raise ValueError(
            f"VICReg compares units over the global batch, which needs 2 units, not {len(z_MD)}"
        )
    return z_MD.to(torch.promote_types(z_MD.dtype, torch.float32))
