"""The two passes over pairs as operators of torch, which torch.compile sees whole.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.devices import device_of
from lightning_rad.kernels.pairs import Pairs, Sums, Weights

FORMS = {"cpu": "fused_cpu", "cuda": "fused_triton"}
"""The module of this package that runs on a type of device, imported on first use."""


def sums(pairs: Pairs, *, both: bool = False) -> tuple[Sums, Sums]:
    """Of the rows and, if both, of the keys; see `fused_cpu.sums`."""
    rows, keys = _sums(*_flat(pairs), both)
    return Sums(*rows), Sums(*(keys if both else rows))


def gradients(
    pairs: Pairs, of_rows: Weights, of_keys: Weights, *, both: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """In the rows, the keys (if both) and 1/t, as they came; see `fused_cpu.gradients`."""
    dx_ND, dy_MD, to_scale = _gradients(
        *_flat(pairs), torch.stack(of_rows), torch.stack(of_keys), both
    )
    return dx_ND, dy_MD, to_scale


def _flat(pairs: Pairs) -> tuple[Any, ...]:
    return (
        pairs.x_ND,
        pairs.y_MD,
        pairs.x_ids_N,
        pairs.y_ids_M,
        pairs.x_groups_N,
        pairs.y_groups_M,
        pairs.own,
        pairs.scale,
        pairs.in_range,
    )


def _form(pairs: Pairs) -> Any:
    return import_module(f"lightning_rad.kernels.pairs.{FORMS[pairs.x_ND.device.type]}")


@torch.library.custom_op("lightning_rad::pair_sums", mutates_args=())
def _sums(
    x_ND: Tensor,
    y_MD: Tensor,
    x_ids_N: Tensor,
    y_ids_M: Tensor,
    x_groups_N: Tensor | None,
    y_groups_M: Tensor | None,
    own: int,
    scale: Tensor,
    in_range: bool,
    both: bool,
) -> tuple[Tensor, Tensor]:
    pairs = Pairs(x_ND, y_MD, x_ids_N, y_ids_M, x_groups_N, y_groups_M, own, scale, in_range)
    with device_of(x_ND):
        rows, keys = _form(pairs).sums(pairs, both)
    return torch.stack(rows), torch.stack(keys) if both else scale.new_empty(0)


@_sums.register_fake
def _sums_shapes(x_ND: Tensor, y_MD: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, scale, _, both = rest
    return scale.new_empty(3, len(x_ND)), scale.new_empty((3, len(y_MD)) if both else 0)


@torch.library.custom_op("lightning_rad::pair_gradients", mutates_args=())
def _gradients(
    x_ND: Tensor,
    y_MD: Tensor,
    x_ids_N: Tensor,
    y_ids_M: Tensor,
    x_groups_N: Tensor | None,
    y_groups_M: Tensor | None,
    own: int,
    scale: Tensor,
    in_range: bool,
    of_rows_3N: Tensor,
    of_keys_3M: Tensor,
    both: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = Pairs(x_ND, y_MD, x_ids_N, y_ids_M, x_groups_N, y_groups_M, own, scale, in_range)
    weights = Weights(*of_rows_3N), Weights(*of_keys_3M)
    with device_of(x_ND):
        dx_ND, dy_MD, to_scale = _form(pairs).gradients(pairs, *weights, both)
    return dx_ND, dy_MD if both else x_ND.new_empty(0), to_scale


@_gradients.register_fake
def _gradient_shapes(x_ND: Tensor, y_MD: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    scale, both = rest[5], rest[-1]
    dy_MD = y_MD.new_empty(y_MD.shape if both else 0)
    return torch.empty_like(x_ND, memory_format=torch.contiguous_format), dy_MD, scale.new_empty(())
