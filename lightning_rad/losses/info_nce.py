"""InfoNCE and NCE: a query finds its key among keys that receive no gradient.

Shape letters: N rows of this rank, K keys, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_rad.kernels import info_nce as kernel
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.temperature import Learned
from lightning_rad.kernels.unit_rows import unit_rows

NCE_EPSILON = 1e-7
"""Added to denominators by CMC, from which C2L took its NCE; C2L's own file left it undefined."""


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
    of rows gives the loss of the global batch. Errors and precision: see the kernel.
    """
    return kernel.info_nce(
        query_ND, positive_ND, keys_KD, temperature=temperature, offset=offset, backend=backend
    )


def nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    *,
    temperature: float,
    log_partition: Tensor,
    images: int,
) -> Tensor:
    """Noise-contrastive estimation: tell the positive from K keys drawn from uniform noise.

    With P = exp(q.k/t) / Z and noise 1/n the mean over rows of
    -log( P_pos / (P_pos + K/n) ) - sum_k log( (K/n) / (P_k + K/n) ); `NCECriterion` of
    funnyzhou/C2L_MICCAI2020 after HobbitLong/CMC. log_partition: 0-d, log Z; see
    `nce_log_partition`. images: n, the number of images. The rest is as in `info_nce`.
    """
    with torch.autocast(query_ND.device.type, enabled=False):
        positive_N, negative_NK = _cosines(query_ND, positive_ND, keys_KD)
        noise = len(keys_KD) / images
        log_rest = math.log(noise + NCE_EPSILON)
        log_p_N = positive_N / temperature - log_partition
        log_p_NK = negative_NK / temperature - log_partition
        lost_N = softplus(log_rest - log_p_N)
        taken_NK = softplus(log_p_NK - log_rest) + log_rest - math.log(noise)
        return (lost_N + taken_NK.sum(1)).mean()


@torch.no_grad()
def nce_log_partition(
    query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, *, temperature: float, images: int
) -> Tensor:
    """The log of the estimate of Z from one batch: n times the mean of exp(q.k/t) over all keys.

    Of the positives, too. Z itself leaves float32 at low temperatures.
    """
    with torch.autocast(query_ND.device.type, enabled=False):
        positive_N, negative_NK = _cosines(query_ND, positive_ND, keys_KD)
        cosines_NK1 = torch.cat([positive_N[:, None], negative_NK], dim=1)
        logits = (cosines_NK1 / temperature).flatten()
        return logits.logsumexp(0) + math.log(images / len(logits))


def _cosines(query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor) -> tuple[Tensor, Tensor]:
    """[N] with the positives and [N, K] with the keys, in float32 or float64."""
    unit_ND = unit_rows(query_ND)
    positive_ND, keys_KD = (x.detach().to(unit_ND.dtype) for x in (positive_ND, keys_KD))
    return (unit_ND * positive_ND).sum(1), unit_ND @ keys_KD.T
