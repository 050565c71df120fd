"""NT-Xent as a differentiable operation whose backward asks the other ranks for numbers, not rows.

The gradient of a row needs, beside its own log-sum-exp and upstream weight, those of every row
that has it as a key. With them it is whole: no gradient of keys is made, sent or summed.

Shape letters: N rows of this rank, M rows of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Sums, Weights, pieces
from lightning_rad.kernels.pairs.pieces import Gather, Keys, Part


class NTXent(torch.autograd.Function):
    """Losses [N] of rows as they came and whether each counts; see `backward` for gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        z_ND: Tensor,
        scale: Tensor,
        keys_MD: Keys,
        ids_M: Tensor,
        groups_M: Tensor | None,
        offset: int,
        in_range: bool,
        gather: Gather,
    ) -> tuple[Tensor, Tensor]:
        """keys_MD holds z_ND at offset."""
        tensors = z_ND, scale, ids_M, groups_M
        sums = pieces.sums(_parts(tensors, keys_MD, offset, in_range))
        counts_N = sums.positives_N > 0
        gathered, ctx.ring = (keys_MD, None) if isinstance(keys_MD, Tensor) else (None, keys_MD)
        ctx.save_for_backward(*tensors, *sums, gathered)
        ctx.place = offset, in_range, gather
        ctx.mark_non_differentiable(counts_N)
        return sums.loss(), counts_N

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Of sum_j w_j loss_j over the rows of all ranks, each with the weight its rank gives it.

        The gradient of 1/t is half of what this rank's rows have as rows and as keys: averaged
        over ranks, as gradients of parameters are, the halves make up the whole.
        """
        *saved, gathered = ctx.saved_tensors
        tensors, sums = saved[:4], saved[4:]
        offset, in_range, gather = ctx.place
        own = Sums(*sums).weights(upstream[0])
        every = Weights(*gather(torch.stack(own, dim=1)).unbind(1))
        parts = _parts(tensors, ctx.ring or gathered, offset, in_range)
        gradient_ND, to_scale = pieces.gradients(parts, own, every)
        return gradient_ND, to_scale / 2, None, None, None, None, None, None


def _parts(tensors: Sequence[Any], keys_MD: Keys, offset: int, in_range: bool) -> Iterator[Part]:
    z_ND, scale, ids_M, groups_M = tensors
    how: dict[str, Any] = {"offset": offset, "among": True, "scale": scale, "in_range": in_range}
    return pieces.parts(z_ND, keys_MD, ids_M, groups_M, **how)
