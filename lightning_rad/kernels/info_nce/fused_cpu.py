"""One pass over the keys that gives the loss and its gradient, a cache-sized block at a time.

With s = q.k / t, E = exp(s - c) and l = sum_k E_k + E_p over keys and positive p the loss is
log l + c - q.p / t and its gradient dq = ((sum_k E_k k + E_p p) / l - p) / t. Both sums come out
of the same pass, so backward only scales what is there. With unit rows c = 1/t bounds every s and
the partial sums of blocks add up; below the temperature where exp(-2/t) leaves the range of the
type, c is the running maximum instead.

bfloat16 queries multiply keys rounded to bfloat16, with float32 sums, where the processor can.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.kernels.rows import Rows, prepared, products_of

ROWS, KEYS = 256, 2048
"""One block of similarities: 2 MiB in float32, about a core's second-level cache."""


def one_pass(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    scale: Tensor,
    offset: int,
    in_range: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [N], gradients [N, D] in the queries as they came, and [N] in 1/t.

    scale: 1 / t, 0-d. offset: key offset + i is row i's positive; below 0, none is. in_range:
    whether exp(s - 1/t) is a normal number for every cosine; else c is a running maximum.
    """
    query = prepared(query_ND)
    keys_KD, positive_ND = keys_KD.to(scale.dtype), positive_ND.to(scale.dtype)
    loss_N, bracket_ND = torch.empty_like(query.square_N), torch.empty_like(query.operand_ND)
    with products_of(query_ND):
        for first in range(0, len(query_ND), ROWS):
            rows = slice(first, first + ROWS)
            own = offset + first if offset >= 0 else None
            loss_N[rows], bracket_ND[rows] = _some_rows(
                query.part(rows), positive_ND[rows], keys_KD, own, scale, in_range
            )
    gradient_ND, along_N = query.gradient(query.pushed(bracket_ND), scale, scale.dtype)
    return loss_N, gradient_ND, along_N


def _some_rows(
    query: Rows,
    positive_ND: Tensor,
    keys_KD: Tensor,
    own: int | None,
    scale: Tensor,
    in_range: bool,
) -> tuple[Tensor, Tensor]:
    """Losses and dq * t of a block of rows."""
    exact = query.factor_N is not None
    left_ND = query.operand_ND if exact else query.operand_ND * scale
    factor_N1 = (query.factor_N * scale)[:, None] if query.factor_N is not None else None
    attraction_N1 = (left_ND * positive_ND).sum(1, keepdim=True)
    attraction_N1 = attraction_N1 if factor_N1 is None else attraction_N1 * factor_N1
    shift_N1 = scale.expand_as(attraction_N1) if in_range else attraction_N1
    total_N1 = torch.zeros_like(attraction_N1)
    mixture_ND = torch.zeros_like(left_ND)
    room = left_ND.new_empty(len(left_ND) * min(KEYS, len(keys_KD)))
    for start in range(0, len(keys_KD), KEYS):
        block_KD = keys_KD[start : start + KEYS]
        e_NK = room[: len(left_ND) * len(block_KD)].view(-1, len(block_KD))
        torch.mm(left_ND, block_KD.T, out=e_NK)
        if factor_N1 is not None:
            e_NK.mul_(factor_N1)
        if own is not None:
            _own_diagonal(e_NK, own - start).fill_(-torch.inf)
        if not in_range:
            higher_N1 = torch.maximum(shift_N1, e_NK.amax(1, keepdim=True))
            shrink_N1 = (shift_N1 - higher_N1).exp()
            total_N1, mixture_ND, shift_N1 = (
                total_N1 * shrink_N1,
                mixture_ND * shrink_N1,
                higher_N1,
            )
        e_NK.sub_(shift_N1).exp_()
        total_N1 += e_NK.sum(1, keepdim=True)
        mixture_ND.addmm_(e_NK, block_KD)
    own_N1 = (attraction_N1 - shift_N1).exp()
    whole_N1 = total_N1 + own_N1
    loss_N = (whole_N1.log() + shift_N1 - attraction_N1).squeeze(1)
    # E_p / l - 1 as -(sum_k E_k) / l: exact where the positive has nearly all of the mass
    return loss_N, (mixture_ND - total_N1 * positive_ND) / whole_N1


def _own_diagonal(e_NK: Tensor, own: int) -> Tensor:
    """The entries (i, own + i) that lie inside the block; a view."""
    return e_NK.diagonal(own) if -len(e_NK) < own < e_NK.shape[1] else e_NK[:0, 0]
