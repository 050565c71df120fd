"""Noise-contrastive estimation of queries against keys without gradient.

Shape letters: N rows of this rank, K keys, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.nce import blocked, reference
from lightning_rad.kernels.temperature import scale_of
from lightning_rad.kernels.unit_rows import unit_rows

EPSILON = 1e-7
"""Added to denominators by CMC, from which C2L took its NCE; C2L's own file left it undefined."""


def nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    *,
    temperature: float,
    log_partition: Tensor,
    images: int,
    backend: Backend = "auto",
) -> Tensor:
    """Tell the positive from K keys drawn from uniform noise.

    With P = exp(q.k/t) / Z and noise 1/n the mean over rows of
    -log( P_pos / (P_pos + K/n) ) - sum_k log( (K/n) / (P_k + K/n) ); `NCECriterion` of
    funnyzhou/C2L_MICCAI2020 after HobbitLong/CMC, with its eps beside K/n in the denominators.

    query_ND is brought to unit length here; positive_ND and keys_KD are compared as they are and
    receive no gradient: hand in unit rows. log_partition: 0-d, log Z, a constant; see
    `nce_log_partition`. images: n, the number of images. Sums are float32, or float64 where the
    queries are; autocast does not reach them. Fused, bfloat16 queries multiply keys in bfloat16:
    keys that are wider are rounded.

    Returns a scalar. Raises ValueError for shapes that do not fit, a temperature that is not
    positive, an unknown backend, and with `auto` where only the dense form is left and its N x K
    matrix is above 256 MiB.
    """
    _check(query_ND, positive_ND, keys_KD)
    positive_ND, keys_KD = positive_ND.detach(), keys_KD.detach()
    with torch.autocast(query_ND.device.type, enabled=False):
        scale, _ = scale_of(temperature, query_ND)
        noise = len(keys_KD) / images
        log_rest = math.log(noise + EPSILON)
        log_odds = -(log_partition.detach().to(scale) + log_rest)
        fused = choose("nce", backend, scale.device, len(query_ND), len(keys_KD))
        loss_sum = blocked.loss_sum if fused else reference.loss_sum
        total = loss_sum(query_ND, positive_ND, keys_KD, scale, log_odds)
        return total / len(query_ND) + len(keys_KD) * (log_rest - math.log(noise))


def nce_log_partition(
    query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, *, temperature: float, images: int
) -> Tensor:
    """The log of the estimate of Z from one batch: n times the mean of exp(q.k/t) over all keys.

    Of the positives, too. Z itself leaves float32 at low temperatures. 0-d, without gradient; in
    blocks on any device. Arguments and errors as those of `nce`.
    """
    _check(query_ND, positive_ND, keys_KD)
    with torch.no_grad(), torch.autocast(query_ND.device.type, enabled=False):
        scale, _ = scale_of(temperature, query_ND)
        positive_ND, keys_KD = positive_ND.to(scale.dtype), keys_KD.to(scale.dtype)
        logsumexp = blocked.logsumexp(unit_rows(query_ND) * scale, positive_ND, keys_KD)
        return logsumexp + math.log(images / (len(query_ND) * (1 + len(keys_KD))))


def _check(query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor) -> None:
    if query_ND.ndim != 2 or positive_ND.shape != query_ND.shape:
        raise ValueError(
            f"queries {tuple(query_ND.shape)} and positives {tuple(positive_ND.shape)} do not match"
        )
    if keys_KD.ndim != 2 or keys_KD.shape[1] != query_ND.shape[1]:
        raise ValueError(f"keys {tuple(keys_KD.shape)} for queries {tuple(query_ND.shape)}")
