"""InfoNCE: a query finds its key among keys that receive no gradient.

Shape letters: N rows of this rank, K keys, D features.
"""

from __future__ import annotations

from torch import Tensor

from lightning_rad.kernels import info_nce as kernel
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.temperature import Learned


def info_nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    *,
    temperature: float | Learned,
    offset: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Mean over rows of -log( exp(q.p/t) / (exp(q.p/t) + sum_k exp(q.k/t)) ).

    Equation 1 of MoCo (arXiv:1911.05722): p is the row's positive, k runs over the keys. With
    `offset` key offset + i is itself the positive of row i and counts once (algorithm 1 of
    MoCo v3, arXiv:2104.02057). query_ND is normalised here; positive_ND and keys_KD are compared
    as they are and receive no gradient: hand in unit rows. Averaging over ranks with equal numbers
    of rows gives the loss of the global batch. Learned: see
    `kernels.temperature.Learned`. Errors and precision: see the kernel.
    """
    return kernel.info_nce(
        query_ND, positive_ND, keys_KD, temperature=temperature, offset=offset, backend=backend
    )
