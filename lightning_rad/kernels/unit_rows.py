"""Rows scaled to length 1, the first half of every cosine.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6
"""Norm below which a row shrinks instead of being normalised; SimCLR's TensorFlow code uses
`tf.math.l2_normalize`, whose floor of 1e-12 is on the squared norm."""


def unit_rows(x_ND: Tensor) -> Tensor:
    """x / max(|x|, EPSILON), without overflow or underflow of the squares.

    Each row is first divided by its largest entry, a constant to the gradient: the quotient does
    not depend on it where |x| > EPSILON. The norm of what is left is then at least 1, or the row
    is one of those below EPSILON. Low precision is widened to float32 first.
    """
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    scale_N1 = x_ND.detach().abs().amax(1, keepdim=True).clamp_min(EPSILON)
    scaled_ND = x_ND / scale_N1
    norm_N1: Tensor = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    # where() and not clamp_min(), whose gradient at 1, the norm of a one-hot row, is 0
    return scaled_ND / norm_N1.where(norm_N1 >= 1, 1.0)
