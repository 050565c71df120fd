"""The fused pass as an operator of torch: seen by torch.compile, differentiable in the queries.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.info_nce import fused_cpu


@torch.library.custom_op("lightning_rad::info_nce", mutates_args=(), device_types="cpu")
def info_nce(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    scale: Tensor,
    offset: int,
    in_range: bool,
) -> tuple[Tensor, Tensor]:
    """Losses [N] and their gradients [N, D]; see `fused_cpu.one_pass`."""
    return fused_cpu.one_pass(query_ND, positive_ND, keys_KD, scale, offset, in_range)


@info_nce.register_fake
def _shapes(query_ND: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return query_ND.new_empty(len(query_ND)), torch.empty_like(query_ND)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query_ND, _, _, scale, *_ = inputs
    ctx.save_for_backward(query_ND, output[1], scale)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, upstream_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query_ND, gradient_ND, scale = ctx.saved_tensors
    # d loss / d (1/t) = q . (sum_k P_k k - p), and dq is that bracket over t
    to_scale = (upstream_N * (query_ND * gradient_ND).sum(1)).sum() / scale
    return upstream_N[:, None] * gradient_ND, None, None, to_scale, None, None


info_nce.register_autograd(_backward, setup_context=_keep)
