"""The fused pass as an operator of torch: seen by torch.compile, its backward only scales.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.devices import device_of
from lightning_rad.kernels.sigmoid_pairs.reference import Side

FORMS = {"cpu": "fused_cpu", "cuda": "fused_triton"}
"""The module of this package that runs on a type of device, imported on first use."""


def pair_sum(
    rows: Side, keys: Side, scale: Tensor, bias: Tensor, *, unit_keys: bool = False
) -> Tensor:
    """As `reference.pair_sum`, in one pass; the gradient of keys is made if they ask for it.

    unit_keys: the keys are compared as they are, and receive no gradient.
    """
    keys_too = keys.x_ND.requires_grad and not unit_keys
    loss: Tensor = _sigmoid_pairs(*rows, *keys, scale, bias, keys_too, unit_keys)[0]
    return loss


@torch.library.custom_op("lightning_rad::sigmoid_pairs", mutates_args=())
def _sigmoid_pairs(
    x_ND: Tensor,
    x_ids_N: Tensor | None,
    x_groups_N: Tensor | None,
    y_MD: Tensor,
    y_ids_M: Tensor | None,
    y_groups_M: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    keys_too: bool,
    unit_keys: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `reference.Sums`."""
    form = import_module(f"lightning_rad.kernels.sigmoid_pairs.{FORMS[x_ND.device.type]}")
    rows, keys = Side(x_ND, x_ids_N, x_groups_N), Side(y_MD, y_ids_M, y_groups_M)
    with device_of(x_ND):
        sums = form.one_pass(rows, keys, scale, bias, keys_too=keys_too, unit_keys=unit_keys)
    return sums.loss, sums.to_row_ND, sums.to_key_MD, sums.to_scale, sums.to_bias


@_sigmoid_pairs.register_fake
def _shapes(x_ND: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _, _, y_MD, _, _, scale, _, keys_too, _ = others
    loss, to_scale, to_bias = (scale.new_empty(()) for _ in range(3))
    to_key_MD = scale.new_empty(len(y_MD) if keys_too else 0, y_MD.shape[1])
    return loss, scale.new_empty(x_ND.shape), to_key_MD, to_scale, to_bias


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.dtypes = inputs[0].dtype, inputs[3].dtype
    ctx.keys_too = inputs[8]
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("sigmoid pairs are differentiable once")
    to_row_ND, to_key_MD, to_scale, to_bias = (upstream * x for x in ctx.saved_tensors)
    of_rows, of_keys = to_row_ND.to(ctx.dtypes[0]), to_key_MD.to(ctx.dtypes[1])
    key_gradient = of_keys if ctx.keys_too else None
    return of_rows, None, None, key_gradient, None, None, to_scale, to_bias, None, None


_sigmoid_pairs.register_autograd(_backward, setup_context=_keep)
