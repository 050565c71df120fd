"""Small Python objects between ranks: plans, paths, error texts. Tensors have the other modules.

They travel pickled between processes of one job; nothing that comes from a file is sent this way
before it was checked.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist

from lightning_rad.collectives.ranks import world_size

T = TypeVar("T")
Group = dist.ProcessGroup | None
"""Ranks that talk to each other; None is the default group."""


def broadcast_object(value: T, group: Group = None) -> T:
    """What rank 0 gave, on every rank; no communication on one process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def gather_objects(value: T, group: Group = None) -> list[T] | None:
    """What every rank gave, in rank order, on rank 0; None elsewhere."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return values


def scatter_objects(values: list[T] | None, group: Group = None) -> T:
    """What rank 0 had for this rank. values: one for each rank, read on rank 0."""
    if world_size() == 1:
        assert values is not None
        return values[0]
    box: list[Any] = [None]
    dist.scatter_object_list(box, values, src=0, group=group)
    received: T = box[0]
    return received


class OwnGroup:
    """A gloo group of all ranks beside the default one, for a thread that talks for itself.

    Made at the first call of `get`, once for each life of the default group: every rank has to make
    that call, in its main thread and at the same place among its collectives.
    """

    def __init__(self) -> None:
        self._group: Group = None
        self._beside: Group = None

    def get(self) -> Group:
        """The group; None on one process."""
        if world_size() == 1:
            return None
        if self._group is None or self._beside is not dist.group.WORLD:
            made = dist.new_group(backend="gloo")
            assert isinstance(made, dist.ProcessGroup)
            self._group, self._beside = made, dist.group.WORLD
        return self._group
