"""How much of a set is read how often: whole shards or ranges, simulated from the order alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from lightning_rad.data.order import Ints, Order

NODE = 8
"""Ranks that share a cache."""
BATCH = 1024
PAGE = 4096


def rows_of_batches(order: Order, batch: int, epoch: int) -> Iterator[Ints]:
    """The units of each global batch within one data epoch, ranks together, in order."""
    begin = -(-epoch * order.units // batch) * batch
    for position in range(begin, (epoch + 1) * order.units - batch + 1, batch):
        yield order.take(order.rows(position, batch, 0, 1))[1]


def fetched(order: Order, shard: npt.NDArray[np.int32], ranks: int, epoch: int = 1) -> Ints:
    """[rank, shard]: whether a rank reads of a shard in one data epoch, once each."""
    shards = int(shard[-1]) + 1
    begin = epoch * order.units
    positions = np.arange(begin, begin + order.units)
    rank = positions % order.groups // (order.groups // ranks)
    seen = np.zeros((ranks, shards), np.int64)
    seen[rank, shard[order.take(positions)[1]]] = 1
    return seen


def misses(visits: Iterable[list[int]], room: int) -> int:
    """Shards fetched where `room` of them are kept, the least recently used going first."""
    kept: OrderedDict[int, None] = OrderedDict()
    count = 0
    for batch in visits:
        for shard in batch:
            count += shard not in kept
            kept[shard] = None
            kept.move_to_end(shard)
        while len(kept) > max(room, len(batch)):  # what is open is not evicted
            kept.popitem(last=False)
    return count


def visits_of_nodes(
    order: Order, shard: npt.NDArray[np.int32], ranks: int, epoch: int = 1
) -> list[list[list[int]]]:
    """For each node the shards of its rows of each batch of a data epoch."""
    nodes = max(1, ranks // NODE)
    visits: list[list[list[int]]] = [[] for _ in range(nodes)]
    for units in rows_of_batches(order, BATCH, epoch):
        for node, mine in enumerate(np.split(shard[units], nodes)):
            visits[node].append(np.unique(mine).tolist())
    return visits


def pages(offset: Ints, size: Ints) -> int:
    """Bytes of the pages that images lie on, each image read alone."""
    first, last = offset // PAGE, (offset + size - 1) // PAGE
    return int((last - first + 1).sum()) * PAGE
