"""ShuffleBN: rows change ranks on their way through a network whose batch norms see one rank each.

Shape letters: N rows of this rank, M rows of all ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.collectives.gather import gather_detached
from lightning_rad.collectives.ranks import rank, world_size


def shuffle_rows(x_N: Tensor, order_M: Tensor) -> Tensor:
    """This rank's share, [N, ...], of all ranks' rows put in a new order, without gradient.

    Section 3.3 of MoCo (arXiv:1911.05722): the statistics a batch norm takes of the keys must not
    be those of the same subset of images as the queries', or they give the pairing away. On one
    process there is one subset, and the rows stay as they are. order_M: [M] int64, a permutation,
    the same on every rank. One all-gather of x, as in the official code.
    """
    if world_size() == 1:
        return x_N.detach()
    return gather_detached(x_N)[_own(order_M)]


def unshuffle_rows(y_N: Tensor, order_M: Tensor) -> Tensor:
    """What `shuffle_rows` with the same order took apart, back on its ranks, in its places."""
    if world_size() == 1:
        return y_N.detach()
    return gather_detached(y_N)[_own(torch.argsort(order_M))]


def _own(order_M: Tensor) -> Tensor:
    share = len(order_M) // world_size()
    return order_M[rank() * share : (rank() + 1) * share]
