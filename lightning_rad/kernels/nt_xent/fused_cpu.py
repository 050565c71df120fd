"""Row sums of exponentials and the gradient they imply, a cache-sized block at a time.

With s_ij = z_i.k_j / t over unit rows and keys, lse_i = log sum_j exp s_ij over the admissible j
and weights w_i (upstream gradient over the number of rows that count), sum_i w_i lse_i has the
gradient dz_i = sum_j (P_ij w_i + P_ji w_j) k_j / t, P_ij = exp(s_ij - lse_i): row i repels its
keys, and is itself repelled as a key of every row j. One block of E = exp(s - 1/t) serves both
parts: P_ij w_i + P_ji w_j = E_ij (a_i + a_j) with a = w exp(1/t - lse).

Where the keys are the rows themselves (one process), E is symmetric and only its upper triangle
of blocks is made, forward and backward. Positives need no block: the sum of a unit's keys is made
once, and each row takes itself off it.

Shape letters: N rows, M keys, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 512
"""Side of a block of E: 1 MiB in float32, inside a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Unit rows [N, D] and keys [M, D], int64 ids and groups [M] of the keys, row i key offset + i.

    scale: 1 / t, 0-d. in_range: whether exp(s - 1/t) is a normal number for every cosine.
    """

    z_ND: Tensor
    keys_MD: Tensor
    ids_M: Tensor
    groups_M: Tensor | None
    offset: int
    scale: Tensor
    in_range: bool

    @property
    def symmetric(self) -> bool:
        """Whether the keys are the rows themselves."""
        return len(self.z_ND) == len(self.keys_MD) and self.in_range


def logsumexp(problem: Problem) -> Tensor:
    """[N] log of the sum over admissible keys of exp(s)."""
    if not problem.symmetric:
        return torch.cat([logits.logsumexp(1) for _, logits in _row_blocks(problem)])
    total_N = problem.z_ND.new_zeros(len(problem.z_ND))
    for rows, columns, e in _upper_blocks(problem):
        total_N[rows] += e.sum(1)
        if rows != columns:
            total_N[columns] += e.sum(0)
    return total_N.log_().add_(problem.scale)


def repulsion(problem: Problem, lse_M: Tensor, weight_M: Tensor) -> Tensor:
    """[N, D]: the gradient of sum_j w_j lse_j, over all M rows, in this rank's rows, times t."""
    gradient_ND = torch.zeros_like(problem.z_ND)
    if not problem.symmetric:
        own = slice(problem.offset, problem.offset + len(problem.z_ND))
        lse_N1, weight_N1 = lse_M[own, None], weight_M[own, None]
        for rows, logits in _row_blocks(problem):
            w = (logits - lse_N1[rows]).exp_().mul_(weight_N1[rows])
            w += logits.sub_(lse_M).exp_().mul_(weight_M)
            torch.mm(w, problem.keys_MD, out=gradient_ND[rows])
        return gradient_ND
    a_N = torch.where(weight_M != 0, weight_M * (problem.scale - lse_M).exp(), 0.0)
    for rows, columns, e in _upper_blocks(problem):
        w = e.mul_(a_N[rows, None] + a_N[columns])
        gradient_ND[rows].addmm_(w, problem.z_ND[columns])
        if rows != columns:
            gradient_ND[columns].addmm_(w.T, problem.z_ND[rows])
    return gradient_ND


def attraction(problem: Problem) -> tuple[Tensor, Tensor]:
    """[N] the mean logit of a row's positives, 0 where it has none, and [N] how many it has."""
    unit_M, positives_M = _units(problem.ids_M)
    own = slice(problem.offset, problem.offset + len(problem.z_ND))
    sum_ND = _of_unit(problem.keys_MD, unit_M)[own] - problem.z_ND
    logit_N = problem.scale * (problem.z_ND * sum_ND).sum(1)
    return logit_N / positives_M[own].clamp_min(1), positives_M[own]


def pull(problem: Problem, weight_M: Tensor) -> Tensor:
    """[N, D]: sum_p (w_i / |P_i| + w_p / |P_p|) k_p over the positives p of each row i."""
    unit_M, positives_M = _units(problem.ids_M)
    own = slice(problem.offset, problem.offset + len(problem.z_ND))
    share_M1 = (weight_M / positives_M.clamp_min(1))[:, None]
    as_row_ND = share_M1[own] * (_of_unit(problem.keys_MD, unit_M)[own] - problem.z_ND)
    as_key_ND = _of_unit(share_M1 * problem.keys_MD, unit_M)[own] - share_M1[own] * problem.z_ND
    return as_row_ND + as_key_ND


def _units(ids_M: Tensor) -> tuple[Tensor, Tensor]:
    """The unit of each key as 0, 1, ... and the number of other keys of it, both [M] int64."""
    unit_M: Tensor
    _, unit_M, count_U = torch.unique(ids_M, return_inverse=True, return_counts=True)
    return unit_M, count_U[unit_M] - 1


def _of_unit(x_MD: Tensor, unit_M: Tensor) -> Tensor:
    """[M, D]: for each key the sum of x over all keys of its unit, itself included."""
    sums_UD = torch.zeros_like(x_MD).index_add_(0, unit_M, x_MD)
    return sums_UD[unit_M]


def _upper_blocks(problem: Problem) -> Iterator[tuple[slice, slice, Tensor]]:
    """Blocks of E on and above the diagonal, 0 where a key is not admissible."""
    rows_ND = problem.z_ND * problem.scale
    room = rows_ND.new_empty(BLOCK * BLOCK)
    slices = [slice(i, min(i + BLOCK, len(rows_ND))) for i in range(0, len(rows_ND), BLOCK)]
    for number, rows in enumerate(slices):
        for columns in slices[number:]:
            shape = rows.stop - rows.start, columns.stop - columns.start
            e = room[: shape[0] * shape[1]].view(shape)
            torch.mm(rows_ND[rows], problem.z_ND[columns].T, out=e)
            e.sub_(problem.scale).exp_()
            _exclude(e, problem, rows, columns, 0.0)
            yield rows, columns, e


def _row_blocks(problem: Problem) -> Iterator[tuple[slice, Tensor]]:
    """All logits of some rows at a time, -inf where a key is not admissible."""
    rows_ND = problem.z_ND * problem.scale
    step = max(1, min(len(rows_ND), 4 * BLOCK * BLOCK // len(problem.keys_MD)))
    everything = slice(0, len(problem.keys_MD))
    for first in range(0, len(rows_ND), step):
        rows = slice(first, min(first + step, len(rows_ND)))
        logits = rows_ND[rows] @ problem.keys_MD.T
        _exclude(logits, problem, rows, everything, -torch.inf)
        yield rows, logits


def _exclude(block: Tensor, problem: Problem, rows: slice, columns: slice, value: float) -> None:
    """Put a value where a key is the row itself, or of its group in another unit."""
    own = problem.offset + rows.start - columns.start
    if -len(block) < own < block.shape[1]:
        block.diagonal(own).fill_(value)
    if problem.groups_M is None:
        return
    as_keys = slice(problem.offset + rows.start, problem.offset + rows.stop)
    mine, theirs = problem.groups_M[as_keys], problem.groups_M[columns]
    shared = torch.isin(mine, theirs) & (mine != 0)
    if shared.any():  # few blocks hold two rows of a group
        same_group = (mine[:, None] == theirs) & shared[:, None]
        other_unit = problem.ids_M[as_keys, None] != problem.ids_M[columns]
        block.masked_fill_(same_group & other_unit, value)
