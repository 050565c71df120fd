"""NT-Xent as a differentiable operation whose backward asks the other ranks for two numbers a row.

The gradient of a row needs, beside its own log-sum-exp and upstream weight, those of every row
that has it as a key. With them it is whole: no gradient of keys is made, sent or summed.

Shape letters: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.nt_xent import fused_cpu
from lightning_rad.kernels.nt_xent.fused_cpu import Problem

Gather = Callable[[Tensor], Tensor]
"""Rows of this rank to those of all ranks, in rank order, without gradient."""


class NTXent(torch.autograd.Function):
    """Losses [N] of unit rows and the number of positives of each; see `backward` for gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        z_ND: Tensor,
        scale: Tensor,
        keys_MD: Tensor,
        ids_M: Tensor,
        groups_M: Tensor | None,
        offset: int,
        in_range: bool,
        gather: Gather,
    ) -> tuple[Tensor, Tensor]:
        """keys_MD holds z_ND at offset."""
        problem = (z_ND, keys_MD, ids_M, groups_M, offset, scale, in_range)
        loss_N, lse_N, positives_N = nt_xent_forward(*problem)
        ctx.save_for_backward(z_ND, keys_MD, ids_M, groups_M, scale, lse_N, positives_N)
        ctx.place = offset, in_range, gather
        ctx.mark_non_differentiable(positives_N)
        return loss_N, positives_N

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Of sum_j w_j loss_j over the rows of all ranks, each with the weight its rank gives it.

        The gradient of 1/t is half of what this rank's rows have as rows and as keys: averaged
        over ranks, as gradients of parameters are, the halves make up the whole.
        """
        z_ND, keys_MD, ids_M, groups_M, scale, lse_N, positives_N = ctx.saved_tensors
        offset, in_range, gather = ctx.place
        weight_N = upstream[0] * (positives_N > 0)
        lse_M, weight_M = gather(torch.stack([lse_N, weight_N], dim=1)).unbind(1)
        gradient_ND = nt_xent_backward(
            z_ND, keys_MD, ids_M, groups_M, offset, scale, in_range, lse_M, weight_M
        )
        to_scale = (z_ND * gradient_ND).sum() / 2
        return gradient_ND * scale, to_scale, None, None, None, None, None, None


@torch.library.custom_op("lightning_rad::nt_xent_forward", mutates_args=(), device_types="cpu")
def nt_xent_forward(
    z_ND: Tensor,
    keys_MD: Tensor,
    ids_M: Tensor,
    groups_M: Tensor | None,
    offset: int,
    scale: Tensor,
    in_range: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, log-sum-exps of the admissible keys, and numbers of positives, [N] each."""
    problem = Problem(z_ND, keys_MD, ids_M, groups_M, offset, scale, in_range)
    lse_N = fused_cpu.logsumexp(problem)
    attraction_N, positives_N = fused_cpu.attraction(problem)
    loss_N = torch.where(positives_N > 0, lse_N - attraction_N, 0.0)
    return loss_N, lse_N, positives_N


@nt_xent_forward.register_fake
def _forward_shapes(z_ND: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    n = len(z_ND)
    return z_ND.new_empty(n), z_ND.new_empty(n), z_ND.new_empty(n, dtype=torch.int64)


@torch.library.custom_op("lightning_rad::nt_xent_backward", mutates_args=(), device_types="cpu")
def nt_xent_backward(
    z_ND: Tensor,
    keys_MD: Tensor,
    ids_M: Tensor,
    groups_M: Tensor | None,
    offset: int,
    scale: Tensor,
    in_range: bool,
    lse_M: Tensor,
    weight_M: Tensor,
) -> Tensor:
    """[N, D]: the gradient in the logits of sum_j w_j loss_j, times the other row, summed."""
    problem = Problem(z_ND, keys_MD, ids_M, groups_M, offset, scale, in_range)
    return fused_cpu.repulsion(problem, lse_M, weight_M) - fused_cpu.pull(problem, weight_M)


@nt_xent_backward.register_fake
def _backward_shapes(z_ND: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(z_ND)
