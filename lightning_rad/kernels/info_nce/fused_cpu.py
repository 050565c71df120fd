"""One pass over the keys that gives the loss and its gradient, a cache-sized block at a time.

With s = q.k, E = exp((s - c) / t) and l = sum_k E_k + E_p over keys and positive p the loss is
log l + (c - q.p) / t and its gradient dq = ((sum_k E_k k + E_p p) / l - p) / t. Both sums come out
of the same pass, so backward only scales what is there. With unit rows c = 1 bounds every s and
the partial sums of blocks add up; below the temperature where exp(-2/t) leaves the range of the
type, c is the running maximum instead.

Shape letters: N rows, K keys, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, KEYS = 256, 2048
"""One block of similarities: 2 MiB in float32, about a core's second-level cache."""


def one_pass(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    scale: Tensor,
    offset: int,
    in_range: bool,
) -> tuple[Tensor, Tensor]:
    """Losses [N] and their gradients [N, D] with respect to the unit rows query_ND.

    scale: 1 / temperature, 0-d. offset: key offset + i is row i's positive; below 0, none is.
    in_range: whether exp((s - 1) / t) is a normal number for every cosine; else c is a running
    maximum.
    """
    loss_N, gradient_ND = torch.empty_like(query_ND[:, 0]), torch.empty_like(query_ND)
    for first in range(0, len(query_ND), ROWS):
        rows = slice(first, first + ROWS)
        own = offset + first if offset >= 0 else None
        _some_rows(
            query_ND[rows] * scale,
            positive_ND[rows],
            keys_KD,
            own,
            scale=scale if in_range else None,
            loss_N=loss_N[rows],
            gradient_ND=gradient_ND[rows],
        )
    return loss_N, gradient_ND.mul_(scale)


def _some_rows(
    logit_rows_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    own: int | None,
    *,
    scale: Tensor | None,
    loss_N: Tensor,
    gradient_ND: Tensor,
) -> None:
    """Fill in losses and dq * t of a block of rows; `logit_rows_ND` are queries times 1 / t."""
    attraction_N1 = (logit_rows_ND * positive_ND).sum(1, keepdim=True)
    shift_N1 = attraction_N1 if scale is None else scale.expand_as(attraction_N1)
    total_N1 = torch.zeros_like(attraction_N1)
    mixture_ND = torch.zeros_like(logit_rows_ND)
    room = logit_rows_ND.new_empty(len(logit_rows_ND) * min(KEYS, len(keys_KD)))
    for start in range(0, len(keys_KD), KEYS):
        block_KD = keys_KD[start : start + KEYS]
        e_NK = room[: len(logit_rows_ND) * len(block_KD)].view(-1, len(block_KD))
        torch.mm(logit_rows_ND, block_KD.T, out=e_NK)
        if own is not None:
            _own_diagonal(e_NK, own - start).fill_(-torch.inf)
        if scale is None:
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
    loss_N.copy_((whole_N1.log() + shift_N1 - attraction_N1).squeeze(1))
    # E_p / l - 1 as -(sum_k E_k) / l: exact where the positive has nearly all of the mass
    torch.div(mixture_ND - total_N1 * positive_ND, whole_N1, out=gradient_ND)


def _own_diagonal(e_NK: Tensor, own: int) -> Tensor:
    """The entries (i, own + i) that lie inside the block; a view."""
    return e_NK.diagonal(own) if -len(e_NK) < own < e_NK.shape[1] else e_NK[:0, 0]
