"""The normalised mean squared error of BYOL.

Shape letters: N rows of this rank, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.kernels.unit_rows import unit_rows


def cosine_regression(prediction_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Mean over rows of |p - t|^2 between unit vectors, that is 2 - 2 cos(p, t); 0 to 4.

    Equation 2 of BYOL (arXiv:2006.07733). Gradient reaches prediction_ND only. Computed in
    float32, or float64 where an input is; autocast does not reach it.
    """
    with torch.autocast(prediction_ND.device.type, enabled=False):
        difference_ND = unit_rows(prediction_ND) - unit_rows(target_ND.detach())
        return difference_ND.square().sum(1).mean()
