"""All-gathers, in rank order along the first dimension; the identity on one process.

Shape letters: N rows of this rank, D features, W ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rad.collectives.ranks import world_size

# torch 2.14 renamed both and warns about the old names, which are all that 2.11 has
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_rows(x_ND: Tensor) -> Tensor:
    """The rows of all ranks, [W*N, D], differentiable; rank r's rows start at row r*N.

    Gradient: the backward SUMS over ranks what each of them says about this rank's rows. This sum
    is the one place where the world size enters a gradient. With the rank-local mean losses
    L_r = 1/N sum_i l_i the loss of the global batch is L = 1/W sum_r L_r. Rank q's rows receive
    sum_r dL_r/dz_q = W dL/dz_q, so rank q holds W (dL/dz_q)(dz_q/dtheta) of the parameter
    gradient, and the mean over ranks that DDP (or FSDP) takes is 1/W sum_q of these
    = sum_q (dL/dz_q)(dz_q/dtheta) = dL/dtheta: that of one process on the global batch, without a
    factor anywhere else. A gather that detaches the other ranks' rows keeps the loss and loses
    the part of the gradient that flows through them.

    x_ND: any number of trailing dimensions; the shape must be the same on all ranks. That is not
    checked here, for it would cost a collective every step, unless TORCH_DISTRIBUTED_DEBUG is
    INFO or DETAIL.
    """
    if world_size() == 1:
        return x_ND
    if dist.get_debug_level() != dist.DebugLevel.OFF:  # type: ignore[attr-defined]
        require_equal_shapes(x_ND)
    gathered: Tensor = _GatherRows.apply(x_ND)
    return gathered


@torch.no_grad()
def gather_detached(x_N: Tensor) -> Tensor:
    """The rows of all ranks, [W*N, ...], cut off from gradients: ids, keys of a queue.

    Any dtype; equal shapes as in `gather_rows`.
    """
    return x_N.detach() if world_size() == 1 else _concatenate(x_N)


@torch.no_grad()
def gather_uneven(x_ND: Tensor) -> Tensor:
    """The rows of all ranks, without gradient, where ranks hold different numbers of rows.

    A rank may hold none. Any dtype; the trailing dimensions must agree. Reads the row counts on
    the host, so it does not belong in a training step.
    """
    if world_size() == 1:
        return x_ND
    counts = _concatenate(torch.tensor([len(x_ND)], device=x_ND.device)).tolist()
    most = max(counts)
    padded = x_ND.new_zeros(most, *x_ND.shape[1:])
    padded[: len(x_ND)] = x_ND
    gathered = _concatenate(padded)
    return torch.cat([gathered.narrow(0, r * most, n) for r, n in enumerate(counts)])


@torch.no_grad()
def require_equal_shapes(x: Tensor) -> None:
    """Raise ValueError on every rank, naming all shapes, unless they are equal on all ranks."""
    shape = torch.tensor(x.shape, device=x.device, dtype=torch.int64)
    dims = _concatenate(torch.tensor([len(shape)], device=x.device)).tolist()
    padded = torch.full((max(dims),), -1, device=x.device)
    padded[: len(shape)] = shape
    rows = _concatenate(padded[None]).tolist()
    shapes = [tuple(row[:n]) for row, n in zip(rows, dims, strict=True)]
    if len(set(shapes)) > 1:
        raise ValueError(f"ranks hold tensors of different shapes: {shapes} in rank order")


def _concatenate(x: Tensor) -> Tensor:
    """All ranks' x along dimension 0, without gradient."""
    x = x.contiguous()
    if x.dtype == torch.bool:  # no backend reduces or gathers bits
        return _concatenate(x.view(torch.uint8)).view(torch.bool)
    gathered = x.new_empty(world_size() * x.shape[0], *x.shape[1:])
    _all_gather(gathered, x)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor) -> Tensor:
        ctx.rows = x_ND.shape[0]
        return _concatenate(x_ND)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        summed_MD = grads[0].contiguous()
        own_ND = summed_MD.new_empty(ctx.rows, *summed_MD.shape[1:])
        _reduce_scatter(own_ND, summed_MD, op=dist.ReduceOp.SUM)
        return own_ND
