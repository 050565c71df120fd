"""Images and what was drawn for their views, to views: crop, greys, blur, grain, shade, holes.

Shape letters: K images, B views, H W sides of the canvas, h w sides of a view, S side of the tile.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import get_args

from torch import Tensor

from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.devices import device_of
from lightning_rad.kernels.render import reference
from lightning_rad.kernels.render.drawn import Drawn

log = logging.getLogger(__name__)


def render(
    canvas_KHW: Tensor,
    which_B: Tensor | None,
    drawn: Drawn,
    tile_SS: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """[B, h, w] uint8 views; every form gives the same greys, to the bit.

    canvas_KHW: uint8, images in upper left corners. which_B: int64, the image of each view; None:
    view b shows image b; at least one view. tile_SS: int16 grain that repeats itself. backend:
    `reference` is PyTorch on any device, `fused` is Triton, `auto` is Triton on CUDA and the
    reference elsewhere. No gradient; made to be called beside a model, not compiled into one.

    Raises ValueError for an unknown backend; Triton raises on a device that it cannot launch on.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend: '{backend}' is not one of {list(get_args(Backend))}")
    fused = backend == "fused" or (backend == "auto" and canvas_KHW.device.type == "cuda")
    _tell(canvas_KHW.device.type, fused)
    if not fused:
        return reference.views_of(canvas_KHW, which_B, drawn, tile_SS)
    from lightning_rad.kernels.render import fused_triton  # noqa: PLC0415 - on first use

    with device_of(canvas_KHW):
        return fused_triton.views_of(canvas_KHW, which_B, drawn, tile_SS)


@cache
def _tell(device: str, fused: bool) -> None:
    log.info("render on %s: %s", device, "fused" if fused else "reference")
