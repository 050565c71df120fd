"""The definition: dense, N x M, in plain torch; every other form is tested against it.

Shape letters: N rows of this rank, M keys of all ranks, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.kernels.unit_rows import unit_rows


def per_row_loss(
    z_ND: Tensor,
    keys_MD: Tensor,
    row_ids_N: Tensor,
    key_ids_M: Tensor,
    *,
    offset: int,
    temperature: float | Tensor,
    groups: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of each row, [N], and whether it counts, [N] bool; see the package's function."""
    dtype = torch.promote_types(torch.promote_types(z_ND.dtype, keys_MD.dtype), torch.float32)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(dtype)
    logits_NM = unit_rows(z_ND.to(dtype)) @ unit_rows(keys_MD.to(dtype)).T / temperature

    own_N = torch.arange(len(z_ND), device=z_ND.device) + offset
    self_NM = own_N[:, None] == torch.arange(len(keys_MD), device=z_ND.device)
    same_id_NM = row_ids_N[:, None] == key_ids_M
    positive_NM = same_id_NM & ~self_NM
    positives_N = positive_NM.sum(1)
    counts_N = positives_N > 0

    left_out_NM = self_NM
    if groups is not None:
        row_groups_N1, key_groups_M = groups[0][:, None], groups[1]
        known_same_NM = (row_groups_N1 == key_groups_M) & (row_groups_N1 != 0)
        left_out_NM = self_NM | (known_same_NM & ~same_id_NM)

    admissible_NM = logits_NM.masked_fill(left_out_NM, -torch.inf)
    attraction_N = (logits_NM * positive_NM).sum(1) / positives_N.clamp_min(1)
    loss_N = admissible_NM.logsumexp(1) - attraction_N
    return torch.where(counts_N, loss_N, 0.0), counts_N
