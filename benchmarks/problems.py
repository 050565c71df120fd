"""The losses that are timed, each with all ways to it on the same rows; "dense" is the truth.

dense: the shortest plain torch that gives the loss, products in the precision of the rows and
sums in float32. definition: our reference form, which also knows many positives and groups. Rows
are not of unit length: every way normalises. The temperature is fixed at T.

Shape letters: N pairs or queries, M rows, K keys, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.rows import LOW, T, logits, ours_in, own, random_rows, unit
from benchmarks.sided_problems import sigmoid, two_sides
from benchmarks.ways import Way, Ways, leaf, optional
from lightning_rad.kernels.choice import Backend
from lightning_rad.losses.info_nce import info_nce
from lightning_rad.losses.nt_xent import nt_xent


def two_views(
    pairs: int, dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Ways:
    """NT-Xent of SimCLR."""
    rows_MD = random_rows(2 * pairs, dim, device=device, dtype=dtype)
    ids_M = torch.arange(pairs, device=device).repeat(2)
    partner_M = torch.arange(2 * pairs, device=device).roll(pairs)

    def dense(z_MD: Tensor) -> Tensor:
        u_MD = unit(z_MD)
        itself_MM = torch.eye(2 * pairs, dtype=torch.bool, device=device)
        return cross_entropy(logits(u_MD, u_MD).masked_fill(itself_MM, -torch.inf), partner_M)

    def ours(z_MD: Tensor, backend: Backend) -> Tensor:
        return nt_xent(z_MD, z_MD, ids_M, temperature=T, backend=backend)

    ways: Ways = {"dense": Way(dense, (leaf(rows_MD),), LOW)}
    ways |= ours_in(own(dtype), ours, (rows_MD,))
    theirs = optional("lightly.loss", "NTXentLoss")
    if isinstance(theirs, str):
        return ways | {"lightly": theirs}
    module = theirs(T)
    lightly = Way(lambda z_MD: module(z_MD[:pairs], z_MD[pairs:]), (leaf(rows_MD),), LOW)
    return ways | {"lightly": lightly}


def mined_pairs(pairs: int, dim: int) -> Ways:
    """Two views, and pytorch-metric-learning, whose memory is cubic in the pairs."""
    theirs = optional("pytorch_metric_learning.losses", "NTXentLoss")
    ways = two_views(pairs, dim)
    ours = ways["ours"]
    if isinstance(theirs, str) or isinstance(ours, str):
        return ways | {"pytorch-metric-learning": str(theirs)}
    module, ids_M = theirs(T), torch.arange(pairs).repeat(2)
    mined = Way(lambda z_MD: module(z_MD, ids_M), ours.leaves)
    return ways | {"pytorch-metric-learning": mined}


def many_views(units: int, views: int, dim: int) -> Ways:
    """SupCon: every other view of a unit is a positive, told by ids or by a matrix of masks."""
    rows_MD = random_rows(units * views, dim, device="cpu", dtype=torch.float32)
    ids_M = torch.arange(units).repeat(views)

    def dense(z_MD: Tensor) -> Tensor:
        other_MM = 1 - torch.eye(len(z_MD))
        positive_MM = (ids_M[:, None] == ids_M).float() * other_MM
        u_MD = unit(z_MD)
        s_MM = logits(u_MD, u_MD)
        log_p_MM = s_MM - ((s_MM - 1 / T).exp() * other_MM).sum(1, keepdim=True).log() - 1 / T
        return -((positive_MM * log_p_MM).sum(1) / positive_MM.sum(1)).mean()

    def ours(z_MD: Tensor, backend: Backend) -> Tensor:
        return nt_xent(z_MD, z_MD, ids_M, temperature=T, backend=backend)

    ways: Ways = {"dense": Way(dense, (leaf(rows_MD),))}
    ways |= ours_in(own(torch.float32), ours, (rows_MD,))
    theirs = optional("pytorch_metric_learning.losses", "SupConLoss")
    if isinstance(theirs, str) or units * views > 1024:
        return ways
    module = theirs(T)
    mined = Way(lambda z_MD: module(z_MD, ids_M), (leaf(rows_MD),))
    return ways | {"pytorch-metric-learning": mined}


def queue(
    rows: int, length: int, dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Ways:
    """InfoNCE of MoCo; lightly's memory bank also takes the new keys in, where ours stays."""
    query_ND = random_rows(rows, dim, device=device, dtype=dtype)
    keys_KD = unit(random_rows(length + rows, dim, device=device, dtype=dtype, seed=1))
    positive_ND, queue_KD = keys_KD[:rows].contiguous(), keys_KD[rows:].contiguous()
    first_N = torch.zeros(rows, dtype=torch.int64, device=device)

    def dense(q_ND: Tensor) -> Tensor:
        u_ND = unit(q_ND)
        found_N1 = (u_ND * positive_ND).sum(1, keepdim=True).float() / T
        return cross_entropy(torch.cat([found_N1, logits(u_ND, queue_KD)], dim=1), first_N)

    queues = {dtype: queue_KD}

    def ours(q_ND: Tensor, backend: Backend) -> Tensor:
        if q_ND.dtype not in queues:  # once, before the clock runs
            queues[q_ND.dtype] = queue_KD.to(q_ND.dtype)
        keys = queues[q_ND.dtype]
        return info_nce(q_ND, positive_ND.to(q_ND), keys, temperature=T, backend=backend)

    ways: Ways = {"dense": Way(dense, (leaf(query_ND),), LOW)}
    ways |= ours_in(own(dtype), ours, (query_ND,))
    theirs = optional("lightly.loss", "NTXentLoss")
    if isinstance(theirs, str):
        return ways | {"lightly": theirs}
    module = theirs(T, memory_bank_size=(length, dim))
    module.memory_bank.bank = queue_KD.clone()
    bank = Way(lambda q_ND: module(q_ND, positive_ND), (leaf(query_ND),), LOW)
    return ways | {"lightly": bank}


PROBLEMS: dict[str, Callable[..., Ways]] = {
    "NT-Xent": two_views,
    "NT-Xent, mined": mined_pairs,
    "SupCon": many_views,
    "InfoNCE": queue,
    "CLIP": two_sides,
    "sigmoid": sigmoid,
}
