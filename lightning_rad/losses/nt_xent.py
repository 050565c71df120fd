"""NT-Xent, the loss of SimCLR.

Shape letters: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from torch import Tensor

from lightning_rad.kernels import nt_xent as kernel
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.pairs.pieces import Gather, Keys, alone
from lightning_rad.kernels.temperature import Learned


def nt_xent(
    z_ND: Tensor,
    keys_MD: Keys,
    ids_M: Tensor,
    *,
    temperature: float | Learned,
    groups_M: Tensor | None = None,
    offset: int = 0,
    gather: Gather = alone,
    backend: Backend = "auto",
) -> Tensor:
    """Mean over rows i of -mean_{p in P_i} log( exp(s_ip/t) / sum_{j != i} exp(s_ij/t) ).

    s is the cosine similarity, t the temperature, P_i the rows other than i with the id of row i.
    With two views a unit P_i holds one row and this is equation 1 of SimCLR (arXiv:2002.05709)
    averaged over both directions of all pairs; with more it is L_out of SupCon (arXiv:2004.11362,
    equation 2). Rows without a positive are left out of the mean; where ranks differ in how many
    such rows they hold, the mean of their losses is not that of the global batch.

    z_ND: this rank's embeddings, not normalised. keys_MD: those of all ranks, this rank's at
    `offset`, without gradient; a tensor or, where they would not fit, a ring. ids_M: int64, equal
    for views of one unit. groups_M: int64, such as patients; the rows of row i's group that are not
    its positives leave its sum over j, so that they are not pushed away. Group 0 means unknown and
    leaves everything in, as does None. gather: how backward learns the log-sum-exps of the other
    ranks. Gradient reaches z_ND and a learned temperature. Learned: see
    `kernels.temperature.Learned`. Errors and precision: see the kernel.
    """
    return kernel.nt_xent(
        z_ND,
        keys_MD,
        ids_M,
        temperature=temperature,
        groups_M=groups_M,
        offset=offset,
        gather=gather,
        backend=backend,
    )
