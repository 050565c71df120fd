"""InfoNCE of queries against keys without gradient: a queue, or the keys of all ranks.

Shape letters: N rows of this rank, K keys, D features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.info_nce import operator
from lightning_rad.kernels.info_nce.reference import per_row_loss
from lightning_rad.kernels.temperature import Learned, scale_of
from lightning_rad.kernels.unit_rows import unit_rows


def info_nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    *,
    temperature: float | Learned,
    offset: int | None = None,
    reduction: Literal["mean", "none"] = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """-log( exp(q.p/t) / (exp(q.p/t) + sum_k exp(q.k/t)) ) of each row, averaged.

    query_ND is brought to unit length here; positive_ND and keys_KD are compared as they are and
    receive no gradient: hand in unit rows, for the fused form has no range for longer ones. With
    `offset` key offset + i is itself the positive of row i and counts once. Gradient reaches
    query_ND and a learned temperature. Sums are float32, or float64 where the queries are; autocast
    does not reach them. Fused, bfloat16 queries multiply keys in bfloat16: keys that are wider are
    rounded.

    Returns a scalar, or [N] losses for reduction "none". Raises ValueError for shapes that do not
    fit, a temperature that is not positive, an unknown backend, and with `auto` where only the
    dense form is left and its N x K matrix is above 256 MiB.
    """
    _check(query_ND, positive_ND, keys_KD, offset)
    positive_ND, keys_KD = positive_ND.detach(), keys_KD.detach()
    with torch.autocast(query_ND.device.type, enabled=False):
        scale, in_range = scale_of(temperature, query_ND)
        if choose("info_nce", backend, query_ND.device, len(query_ND), len(keys_KD)):
            own = -1 if offset is None else offset
            loss_N: Tensor = operator.info_nce(
                query_ND, positive_ND, keys_KD, scale, own, in_range
            )[0]
        else:
            positive_ND, keys_KD = positive_ND.to(scale.dtype), keys_KD.to(scale.dtype)
            unit_ND = unit_rows(query_ND)
            loss_N = per_row_loss(unit_ND, positive_ND, keys_KD, scale=scale, offset=offset)
        return loss_N if reduction == "none" else loss_N.mean()


def _check(query_ND: Tensor, positive_ND: Tensor, keys_KD: Tensor, offset: int | None) -> None:
    if query_ND.ndim != 2 or positive_ND.shape != query_ND.shape:
        raise ValueError(
            f"queries {tuple(query_ND.shape)} and positives {tuple(positive_ND.shape)} do not match"
        )
    if keys_KD.ndim != 2 or keys_KD.shape[1] != query_ND.shape[1]:
        raise ValueError(f"keys {tuple(keys_KD.shape)} for queries {tuple(query_ND.shape)}")
    if offset is not None and not 0 <= offset <= len(keys_KD) - len(query_ND):
        raise ValueError(
            f"offset: rows {offset} to {offset + len(query_ND)} are not among {len(keys_KD)} keys"
        )
