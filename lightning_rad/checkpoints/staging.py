"""Copies of a checkpoint's tensors in host memory: training changes its own in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Piece:
    """A box of a tensor that this rank may write: all of it, or its shard.

    values: in host memory. offsets: of the box in the whole. size: of the whole.
    """

    values: Tensor
    offsets: torch.Size
    size: torch.Size
    stride: tuple[int, ...]


class Staging:
    """Room in host memory that one save after the other uses, pinned for tensors of a GPU."""

    def __init__(self) -> None:
        self._room: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Piece]:
        """Copy; back when all is in host memory. What was copied before is written over."""
        pieces, devices = {}, set()
        for key, x in tensors.items():
            box = local(x)
            room = self._room_for(key, box)
            room.copy_(box, non_blocking=box.is_cuda)
            if box.is_cuda:
                devices.add(box.device)
            pieces[key] = Piece(room, _offsets(x), x.size(), tuple(x.stride()))
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        self._room = {key: piece.values for key, piece in pieces.items()}
        return pieces

    def _room_for(self, key: str, box: Tensor) -> Tensor:
        room = self._room.get(key)
        same = room is not None and (room.shape, room.dtype) == (box.shape, box.dtype)
        if room is not None and same and room.is_pinned() == box.is_cuda:
            return room
        return torch.empty_like(box, device="cpu", pin_memory=box.is_cuda)


def local(x: Tensor) -> Tensor:
    """What this rank holds of a tensor, detached."""
    x = x.detach()
    return x.to_local() if isinstance(x, DTensor) else x


def _offsets(x: Tensor) -> torch.Size:
    if not isinstance(x, DTensor):
        return torch.Size([0] * x.ndim)
    [chunk] = x.__create_chunk_list__()  # type: ignore[no-untyped-call]
    offsets: torch.Size = chunk.offsets
    return offsets


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The keys of the tensors, or of their shards here, that hold an infinity or a NaN.

    One pass over each tensor where it lies and one number read by the host.
    """
    boxes = {key: local(x) for key, x in tensors.items() if x.is_floating_point()}
    boxes = {key: x for key, x in boxes.items() if x.numel()}
    by_kind: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for key, x in boxes.items():
        by_kind.setdefault((x.device, x.dtype), []).append(key)
    for keys in by_kind.values():
        largest = torch._foreach_norm([boxes[key] for key in keys], ord=float("inf"))
        finite = torch.stack(largest).isfinite()
        if not finite.all():
            return [key for key, good in zip(keys, finite.tolist(), strict=True) if not good]
    return []
