"""The definition: dense, N x M, in plain torch; every other form is tested against it.

Shape letters: N rows of this rank, M keys of all ranks, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6
"""Norm below which a row shrinks instead of being normalised; SimCLR's TensorFlow code uses
`tf.math.l2_normalize`, whose floor of 1e-12 is on the squared norm."""


def per_row_loss(
    z_ND: Tensor,
    keys_MD: Tensor,
    row_ids_N: Tensor,
    key_ids_M: Tensor,
    *,
    offset: int,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """The loss of each row, [N], and whether it counts, [N] bool; see the package's function."""
    dtype = torch.promote_types(torch.promote_types(z_ND.dtype, keys_MD.dtype), torch.float32)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(dtype)
    logits_NM = unit_rows(z_ND.to(dtype)) @ unit_rows(keys_MD.to(dtype)).T / temperature

    own_N = torch.arange(len(z_ND), device=z_ND.device) + offset
    self_NM = own_N[:, None] == torch.arange(len(keys_MD), device=z_ND.device)
    positive_NM = (row_ids_N[:, None] == key_ids_M) & ~self_NM
    positives_N = positive_NM.sum(1)
    counts_N = positives_N > 0

    admissible_NM = logits_NM.masked_fill(self_NM, -torch.inf)
    attraction_N = (logits_NM * positive_NM).sum(1) / positives_N.clamp_min(1)
    loss_N = admissible_NM.logsumexp(1) - attraction_N
    return torch.where(counts_N, loss_N, 0.0), counts_N


def unit_rows(x_ND: Tensor) -> Tensor:
    """x / max(|x|, EPSILON), without overflow or underflow of the squares.

    Each row is first divided by its largest entry, a constant to the gradient: the quotient does
    not depend on it where |x| > EPSILON. The norm of what is left is then at least 1, or the row
    is one of those below EPSILON.
    """
    scale_N1 = x_ND.detach().abs().amax(1, keepdim=True).clamp_min(EPSILON)
    scaled_ND = x_ND / scale_N1
    norm_N1: Tensor = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    return scaled_ND / norm_N1.clamp_min(1)
