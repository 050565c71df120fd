"""The fused pass as an operator of torch: seen by torch.compile, its backward only scales.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.sigmoid_pairs import fused_cpu
from lightning_rad.kernels.sigmoid_pairs.reference import Side


def pair_sum(rows: Side, keys: Side, scale: Tensor, bias: Tensor) -> Tensor:
    """As `reference.pair_sum`, in one pass; the gradient of keys is made if they ask for it."""
    keys_too = keys.unit_ND.requires_grad
    loss: Tensor = _sigmoid_pairs(*rows, *keys, scale, bias, keys_too)[0]
    return loss


@torch.library.custom_op("lightning_rad::sigmoid_pairs", mutates_args=(), device_types="cpu")
def _sigmoid_pairs(
    row_ND: Tensor,
    row_ids_N: Tensor | None,
    row_groups_N: Tensor | None,
    key_MD: Tensor,
    key_ids_M: Tensor | None,
    key_groups_M: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    keys_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `fused_cpu.Sums`."""
    rows, keys = Side(row_ND, row_ids_N, row_groups_N), Side(key_MD, key_ids_M, key_groups_M)
    sums = fused_cpu.one_pass(rows, keys, scale, bias, keys_too=keys_too)
    return sums.loss, sums.to_row_ND, sums.to_key_MD, sums.to_scale, sums.to_bias


@_sigmoid_pairs.register_fake
def _shapes(row_ND: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    key_MD, keys_too = others[2], others[-1]
    to_key_MD = torch.empty_like(key_MD) if keys_too else key_MD[:0].clone()
    loss, to_scale, to_bias = (row_ND.new_empty(()) for _ in range(3))
    return loss, torch.empty_like(row_ND), to_key_MD, to_scale, to_bias


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, keys_too = inputs
    ctx.keys_too = keys_too
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    to_row_ND, to_key_MD, to_scale, to_bias = (upstream * x for x in ctx.saved_tensors)
    key_gradient = to_key_MD if ctx.keys_too else None
    return to_row_ND, None, None, key_gradient, None, None, to_scale, to_bias, None


_sigmoid_pairs.register_autograd(_backward, setup_context=_keep)
