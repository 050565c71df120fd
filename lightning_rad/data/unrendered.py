"""Images and drawn parameters on their way to a device that renders the views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.render_device import render_device


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Some rows before rendering: for each view, the image of each row and what was drawn."""

    images: list[list[npt.NDArray[np.uint8]]]
    params: list[ViewParams]


@dataclass(frozen=True, slots=True)
class Unrendered:
    """R rows of V views: canvas [K, 1, H, W] uint8 of K distinct images, which: [V, R] int64."""

    canvas: Tensor
    which: Tensor
    params: tuple[ViewParams, ...]

    def to(self, device: torch.device) -> Unrendered:
        """The same with the tensors on a device."""
        canvas = self.canvas.to(device, non_blocking=True)
        return Unrendered(canvas, self.which.to(device), self.params)

    def render(self) -> Tensor:
        """[V, R, 1, h, w] uint8."""
        views = zip(self.which, self.params, strict=True)
        return torch.stack([render_device(self.canvas, drawn, rows) for rows, drawn in views])


def assemble(chunks: Sequence[DrawnRows], *, pin: bool) -> Unrendered:
    """One canvas of the distinct images of all rows, each in the upper left corner of its slot."""
    views = range(len(chunks[0].params))
    shown = [[image for chunk in chunks for image in chunk.images[view]] for view in views]
    distinct = {id(image): image for view in shown for image in view}
    slot = {key: number for number, key in enumerate(distinct)}
    sides = np.max([image.shape for image in distinct.values()], axis=0).tolist()
    canvas = torch.zeros((len(distinct), 1, *sides), dtype=torch.uint8, pin_memory=pin)
    array = canvas.numpy()
    for number, image in enumerate(distinct.values()):
        array[number, 0, : image.shape[0], : image.shape[1]] = image
    which = torch.tensor([[slot[id(image)] for image in view] for view in shown])
    params = tuple(_concatenate([chunk.params[view] for chunk in chunks]) for view in views)
    return Unrendered(canvas, which, params)


def _concatenate(parts: Sequence[ViewParams]) -> ViewParams:
    """The rows of several draws of one recipe, which all have a shade, or none of them."""
    first = parts[0]
    rows = [f.name for f in fields(ViewParams) if f.name not in ("shape", "fill")]
    joined = {name: _joined([getattr(part, name) for part in parts]) for name in rows}
    return ViewParams(shape=first.shape, fill=first.fill, **joined)


def _joined(arrays: Sequence[npt.NDArray[Any] | None]) -> Any:
    if all(array is None for array in arrays):
        return None
    return np.concatenate(arrays)  # type: ignore[arg-type]  # an error where only some are there
