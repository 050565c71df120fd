"""The fused pass as an operator of torch: seen by torch.compile, differentiable in the queries.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.devices import device_of

FORMS = {"cpu": "fused_cpu", "cuda": "fused_triton"}
"""The module of this package that runs on a type of device, imported on first use."""


@torch.library.custom_op("lightning_rad::info_nce", mutates_args=())
def info_nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    scale: Tensor,
    offset: int,
    in_range: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [N], and their gradients, not rounded, [N, D] and [N]; see `fused_cpu.one_pass`."""
    form = import_module(f"lightning_rad.kernels.info_nce.{FORMS[query_ND.device.type]}")
    with device_of(query_ND):
        loss_N, gradient_ND, to_scale_N = form.one_pass(
            query_ND, positive_ND, keys_KD, scale, offset, in_range
        )
    return loss_N, gradient_ND, to_scale_N


@info_nce.register_fake
def _shapes(
    query_ND: Tensor, _positive: Tensor, _keys: Tensor, scale: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    n = len(query_ND)
    return scale.new_empty(n), scale.new_empty(query_ND.shape), scale.new_empty(n)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, upstream_N: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("info_nce is differentiable once")
    gradient_ND, to_scale_N = ctx.saved_tensors
    to_query_ND = (upstream_N[:, None] * gradient_ND).to(ctx.dtype)
    return to_query_ND, None, None, (upstream_N * to_scale_N).sum(), None, None


info_nce.register_autograd(_backward, setup_context=_keep)
