"""Parameters and a batch of images to views, on the device that the images lie on.

On a GPU the views are rendered there (`kernels/render`), in the same integers as on the host, from
one table of parameters that travels in one copy. Where the device is the host's own memory, they
are rendered as the host renders, row by row by `render_cpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.data.views.noise import noise_tile
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.render import render
from lightning_rad.kernels.render.drawn import take

Images = npt.NDArray[np.uint8]


def render_device(
    canvas: Tensor, params: ViewParams, which: Tensor | None = None, *, backend: Backend = "auto"
) -> Tensor:
    """[B, 1, h, w] uint8 views of images of any sizes, on the canvas's device.

    canvas: [K, 1, H, W] uint8, each image in the upper left corner; what lies beyond an image's
    own size is never shown. which: [B] int64 on the same device, the image that each view shows;
    without it there is one view an image. backend: `auto` is the fastest there is on the device;
    for the others see `kernels.render`. Raises ValueError where canvas and parameters do not fit.
    """
    biggest = params.sizes.max(0, initial=0)
    many = len(canvas) if which is None else len(which)
    if canvas.dtype != torch.uint8 or canvas.ndim != 4 or canvas.shape[1] != 1:
        raise ValueError(f"canvas must be uint8 [K, 1, H, W], not {canvas.dtype} {canvas.shape}")
    if many != len(params):
        raise ValueError(f"canvas must be of one image a view: {many} for {len(params)} views")
    if biggest[0] > canvas.shape[2] or biggest[1] > canvas.shape[3]:
        raise ValueError(f"an image of {biggest.tolist()} does not fit {tuple(canvas.shape[2:])}")
    if not many:
        return canvas.new_empty(0, 1, *params.shape)
    if backend == "auto" and canvas.device.type == "cpu":
        return _by_host(canvas, params, which)
    drawn = take(
        canvas.device,
        params.shape,
        affine=params.affine,
        sizes=params.sizes,
        factors=params.factors,
        luts=params.luts,
        kernels=params.kernels,
        noise=params.noise,
        holes=params.holes,
        shade=params.shade,
        fill=params.fill,
    )
    return render(canvas[:, 0], which, drawn, _tile(canvas.device), backend=backend)[:, None]


def normalise(
    views: Tensor, *, mean: float, std: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(grey / 255 - mean) / std, in float32, then cast."""
    return views.to(torch.float32).mul_(1.0 / (255.0 * std)).sub_(mean / std).to(dtype)


def _by_host(canvas: Tensor, params: ViewParams, which: Tensor | None) -> Tensor:
    """As many rows at a time as PyTorch uses threads; OpenCV lets go of the interpreter's lock."""
    views = canvas.new_empty(len(params), 1, *params.shape)
    numbers = range(len(params)) if which is None else which.tolist()
    row = partial(_row_by_host, canvas.numpy(), params, numbers, views.numpy())
    threads = min(torch.get_num_threads(), len(params))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(row, range(len(params))))
    else:
        list(map(row, range(len(params))))
    return views


def _row_by_host(
    canvas: Images, params: ViewParams, numbers: Sequence[int], views: Images, row: int
) -> None:
    height, width = params.sizes[row]
    render_cpu(canvas[numbers[row], 0, :height, :width], params, row, views[row, 0])


@lru_cache(maxsize=8)
def _tile(device: torch.device) -> Tensor:
    return torch.from_numpy(noise_tile()).to(device)
