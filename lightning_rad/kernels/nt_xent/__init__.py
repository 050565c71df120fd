"""Normalised temperature-scaled cross entropy with any number of positives.

Shape letters: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.labels import require_labels
from lightning_rad.kernels.nt_xent.operator import NTXent
from lightning_rad.kernels.nt_xent.reference import per_row_loss
from lightning_rad.kernels.pairs.pieces import Gather, Keys, alone, require_fused
from lightning_rad.kernels.temperature import Learned, scale_of, shared
from lightning_rad.kernels.unit_rows import unit_rows


def nt_xent(
    z_ND: Tensor,
    keys_MD: Keys,
    ids_M: Tensor,
    *,
    temperature: float | Learned,
    groups_M: Tensor | None = None,
    offset: int = 0,
    gather: Gather = alone,
    reduction: Literal["mean", "none"] = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """The cross entropy of each row against all others, averaged over the rows that count.

    With unit vectors z, s_ij = z_i.z_j / temperature, over the rows j other than i and with P_i
    those of equal id: loss_i = logsumexp_j s_ij - mean_{p in P_i} s_ip. A row whose P_i is empty
    gives 0 and does not count.

    z_ND: this rank's rows, floating, not of unit length: x / max(|x|, 1e-6) is part of the
    operation. keys_MD: the rows of all ranks, this rank's at `offset`; values only, their gradient
    is not asked for; at once or, where so many cannot be held, in pieces (`Pieces`). ids_M: int64,
    of all rows. groups_M: [M] int64; a row of row i's group but not of its id leaves the logsumexp
    of row i; group 0 means unknown and excludes nothing. gather: turns a tensor of N rows into
    that of M, without gradient; backward calls it once, on [N, 3]. Every rank has to take
    part, in forward as in backward.

    Gradient reaches z_ND and a learned temperature: that of the sum of the losses of all ranks, as
    if every rank had kept the gradient of its keys and these had been summed. Ranks that average
    the gradients of their parameters thus get those of the mean of their losses. Sums are
    float32, or float64 where an input is; autocast does not reach them. Fused, bfloat16 rows
    multiply in bfloat16.

    Returns a scalar, 0 where no row counts, or [N] losses for reduction "none". Raises ValueError
    for shapes or dtypes that do not fit, a temperature that is not positive, an unknown backend,
    the dense form of pieces, and with `auto` where only the dense form is left and its matrix is
    above 256 MiB.
    """
    count = len(keys_MD) if isinstance(keys_MD, Tensor) else len(ids_M)
    _check(z_ND, keys_MD, count, offset)
    require_labels(count, ids=ids_M, groups=groups_M)
    if isinstance(keys_MD, Tensor):
        rows_dtype = torch.promote_types(z_ND.dtype, keys_MD.dtype)
        z_ND, keys_MD = z_ND.to(rows_dtype), keys_MD.detach().to(rows_dtype)
    with torch.autocast(z_ND.device.type, enabled=False):
        scale, in_range = scale_of(temperature, z_ND)
        if not isinstance(keys_MD, Tensor):
            require_fused(backend)
        elif not choose("nt_xent", backend, z_ND.device, len(z_ND), count):
            return _dense(z_ND, keys_MD, ids_M, groups_M, scale, offset, reduction)
        loss_N, counts_N = NTXent.apply(
            z_ND, scale, keys_MD, ids_M, groups_M, offset, in_range, gather
        )
        return loss_N if reduction == "none" else _mean(loss_N, counts_N)


def _dense(
    z_ND: Tensor,
    keys_MD: Tensor,
    ids_M: Tensor,
    groups_M: Tensor | None,
    scale: Tensor,
    offset: int,
    reduction: str,
) -> Tensor:
    if reduction == "mean" and len(z_ND) == len(keys_MD):
        return _mean(*per_row_loss(unit_rows(z_ND), ids_M, groups_M, scale))
    own = slice(offset, offset + len(z_ND))
    every_MD = unit_rows(torch.cat([keys_MD[: own.start], z_ND, keys_MD[own.stop :]]))
    if reduction == "none":
        return per_row_loss(every_MD, ids_M, groups_M, scale)[0][own]
    scale = shared(scale, len(z_ND) / len(keys_MD))
    loss_M, counts_M = per_row_loss(every_MD, ids_M, groups_M, scale)
    whole = _mean(loss_M, counts_M) * (len(keys_MD) / len(z_ND))
    # the value is this rank's, the gradient that of all rows that have these as keys
    return _mean(loss_M[own], counts_M[own]).detach() + whole - whole.detach()


def _mean(loss_N: Tensor, counts_N: Tensor) -> Tensor:
    return loss_N.sum() / counts_N.sum().clamp_min(1)


def _check(z_ND: Tensor, keys_MD: Keys, count: int, offset: int) -> None:
    keys_shape = keys_MD.shape if isinstance(keys_MD, Tensor) else (count, *z_ND.shape[1:])
    if z_ND.ndim != 2 or len(keys_shape) != 2 or z_ND.shape[1] != keys_shape[1]:
        raise ValueError(f"rows {tuple(z_ND.shape)} and keys {tuple(keys_shape)} do not match")
    if not 0 <= offset <= count - len(z_ND):
        raise ValueError(
            f"offset: rows {offset} to {offset + len(z_ND)} are not among {count} keys"
        )
