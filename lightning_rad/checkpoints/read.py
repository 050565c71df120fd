"""A checkpoint back into memory: into plain tensors, or into those that one asks for."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from lightning_rad.checkpoints.metadata import METADATA, Reader
from lightning_rad.checkpoints.tree import join

PLAIN = "plain.pt"
"""{"tree": all of a checkpoint with None for each tensor, "strides": of each tensor by key}."""

Place = Callable[[str, torch.Size, torch.dtype], Tensor | None]
"""(dotted key, size of the whole, dtype) -> the tensor to be filled; None leaves it unread.

A DTensor is filled with this rank's shard, whatever ranks and layout the checkpoint was written
with; another dtype than the saved one is converted to."""


def read(folder: str | PathLike[str], *, place: Place | None = None) -> dict[str, Any]:
    """The dict that was saved, without running code from it; no communication.

    place: where each tensor goes; None makes plain ones in host memory, with the strides they had.
    The files are taken to be whole: `verify`, `newest` and `resolve` see to that. Raises
    ValueError for what is no checkpoint or does not fit.
    """
    folder = Path(folder)
    content = _plain(folder)
    strides: dict[str, tuple[int, ...]] = content["strides"]
    reader = Reader(folder)
    metadata = reader.read_metadata()
    targets: dict[str, Tensor | None] = dict.fromkeys(strides)
    for key, stride in strides.items():
        kind = metadata.state_dict_metadata.get(key)
        if kind is None:
            raise ValueError(f"{folder / METADATA}: there is no {key}")
        kind = cast(TensorStorageMetadata, kind)
        size, dtype = kind.size, kind.properties.dtype
        if place is None:
            targets[key] = torch.empty_strided(size, stride, dtype=dtype)
            continue
        target = targets[key] = place(key, size, dtype)
        if target is not None and target.size() != size:
            raise ValueError(
                f"{folder}: {key} is of {tuple(size)}, {tuple(target.size())} is wanted"
            )
    wanted = {key: target for key, target in targets.items() if target is not None}
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(wanted, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    plan = planner.finish_plan(reader.prepare_local_plan(planner.create_local_plan()))
    with torch.no_grad():
        reader.read_data(plan, planner).wait()
    return join(content["tree"], targets)


def _plain(folder: Path) -> dict[str, Any]:
    file = folder / PLAIN
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can make its reader raise anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file}: not readable: {reason}") from None
    if not isinstance(content, dict) or content.keys() != {"tree", "strides"}:
        raise ValueError(f"{file}: not of a checkpoint")
    return content
