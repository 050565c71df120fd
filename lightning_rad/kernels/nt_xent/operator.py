"""NT-Xent as a differentiable operation whose backward asks the other ranks for numbers, not rows.

The gradient of a row needs, beside its own log-sum-exp and upstream weight, those of every row
that has it as a key. With them it is whole: no gradient of keys is made, sent or summed.

Shape letters: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Pairs, Sums, Weights, operator

Gather = Callable[[Tensor], Tensor]
"""Rows of this rank to those of all ranks, in rank order, without gradient."""


class NTXent(torch.autograd.Function):
    """Losses [N] of rows as they came and whether each counts; see `backward` for gradients."""

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
        tensors = z_ND, scale, keys_MD, ids_M, groups_M
        sums, _ = operator.sums(_pairs(tensors, offset, in_range))
        counts_N = sums.positives_N > 0
        ctx.save_for_backward(*tensors, *sums)
        ctx.place = offset, in_range, gather
        ctx.mark_non_differentiable(counts_N)
        return sums.loss(), counts_N

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Of sum_j w_j loss_j over the rows of all ranks, each with the weight its rank gives it.

        The gradient of 1/t is half of what this rank's rows have as rows and as keys: averaged
        over ranks, as gradients of parameters are, the halves make up the whole.
        """
        tensors, sums = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        offset, in_range, gather = ctx.place
        own = Sums(*sums).weights(upstream[0])
        every = Weights(*gather(torch.stack(own, dim=1)).unbind(1))
        pairs = _pairs(tensors, offset, in_range)
        gradient_ND, _, to_scale = operator.gradients(pairs, own, every)
        return gradient_ND, to_scale / 2, None, None, None, None, None, None


def _pairs(tensors: Sequence[Any], offset: int, in_range: bool) -> Pairs:
    z_ND, scale, keys_MD, ids_M, groups_M = tensors
    own = slice(offset, offset + len(z_ND))
    groups_N = None if groups_M is None else groups_M[own]
    return Pairs(z_ND, keys_MD, ids_M[own], ids_M, groups_N, groups_M, offset, scale, in_range)
