"""Normalised temperature-scaled cross entropy with any number of positives.

Shape letters: N rows of this rank, M keys of all ranks, D features.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_rad.kernels.nt_xent.reference import per_row_loss

Backend = Literal["auto", "reference"]
"""auto: the fastest form that fits the inputs; reference: the dense definition, at any size."""

AUTO_LIMIT_MIB = 256
"""Largest float32 N x M matrix that `auto` hands to the dense form."""


def nt_xent(
    z_ND: Tensor,
    keys_MD: Tensor,
    row_ids_N: Tensor,
    key_ids_M: Tensor,
    *,
    offset: int,
    temperature: float | Tensor,
    groups: tuple[Tensor, Tensor] | None = None,
    reduction: Literal["mean", "none"] = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """The cross entropy of each row against the keys, averaged over the rows that count.

    With unit vectors z, k and s_ij = z_i.k_j / temperature, over the keys j other than row i itself
    and with P_i those of equal id: loss_i = logsumexp_j s_ij - mean_{p in P_i} s_ip. A row whose
    P_i is empty gives 0 and does not count.

    z_ND, keys_MD: floating, not normalised here or by the caller: x / max(|x|, 1e-6) is part of the
    operation. row_ids_N, key_ids_M: int64. offset: row i is key offset + i. temperature: positive;
    a 0-d tensor may require gradient and is not checked, which would wait for the device. groups:
    [N] and [M] int64, of the rows and of the keys; a key of row i's group but not of its id leaves
    the logsumexp of row i. Group 0 means unknown: it excludes nothing.
    Computed in float32, or float64 where an input is; autocast does not reach it. Gradient reaches
    z_ND, keys_MD and temperature.

    Returns a scalar, 0 where no row counts, or [N] losses for reduction "none". Raises ValueError
    for shapes or dtypes that do not fit, a temperature that is not positive, an unknown backend,
    and with `auto` for an N x M matrix above 256 MiB.
    """
    _check_rows(z_ND, keys_MD, offset)
    _check_labels("ids", row_ids_N, key_ids_M, len(z_ND), len(keys_MD))
    if groups is not None:
        _check_labels("groups", *groups, len(z_ND), len(keys_MD))
    if isinstance(temperature, float | int) and not temperature > 0:
        raise ValueError(f"temperature: {temperature} is not above 0")
    _choose(backend, len(z_ND), len(keys_MD))
    with torch.autocast(z_ND.device.type, enabled=False):
        loss_N, counts_N = per_row_loss(
            z_ND,
            keys_MD,
            row_ids_N,
            key_ids_M,
            offset=offset,
            temperature=temperature,
            groups=groups,
        )
        return loss_N if reduction == "none" else loss_N.sum() / counts_N.sum().clamp_min(1)


def _choose(backend: str, rows: int, keys: int) -> None:
    if backend not in get_args(Backend):
        raise ValueError(f"backend: '{backend}' is not one of {list(get_args(Backend))}")
    need_mib = rows * keys * 4 / 2**20
    if backend == "auto" and need_mib > AUTO_LIMIT_MIB:
        raise ValueError(
            f"backend: 'auto' refuses {rows} x {keys} similarities ({need_mib:.0f} MiB a copy, "
            f"limit {AUTO_LIMIT_MIB}); set backend 'reference' to allow them, or a smaller batch"
        )


def _check_rows(z_ND: Tensor, keys_MD: Tensor, offset: int) -> None:
    if z_ND.ndim != 2 or keys_MD.ndim != 2 or z_ND.shape[1] != keys_MD.shape[1]:
        raise ValueError(f"rows {tuple(z_ND.shape)} and keys {tuple(keys_MD.shape)} do not match")
    if not 0 <= offset <= len(keys_MD) - len(z_ND):
        raise ValueError(
            f"offset: rows {offset} to {offset + len(z_ND)} are not among {len(keys_MD)} keys"
        )


def _check_labels(name: str, row_N: Tensor, key_M: Tensor, rows: int, keys: int) -> None:
    if row_N.shape != (rows,) or key_M.shape != (keys,):
        raise ValueError(
            f"{name} {tuple(row_N.shape)}, {tuple(key_M.shape)} for {rows} rows and {keys} keys: "
            "one for each is needed"
        )
    if row_N.dtype != torch.int64 or key_M.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, not {row_N.dtype} and {key_M.dtype}")
