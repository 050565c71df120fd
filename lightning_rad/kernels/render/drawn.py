"""What is drawn for each view of a batch, on its way to a device in one piece.

Shape letters: B views, R radius of the blur, N holes, h w sides of a view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Drawn:
    """Tensors of the device, and what of it decides, on the host, which work there is.

    All but `shade_Bhw` are columns of one table, so that one copy takes them along, and a row has
    the same stride in each; int32, but for the greys of luts_BG, [B, 256], and shade_Bhw: uint8.
    What they mean says `take`. reach_B: the farthest tap of each blur that is not 0.
    factors: the same on the host. taps: offsets that some blur uses. noisy: whether any view is.
    """

    shape: tuple[int, int]
    affine_B23: Tensor
    sizes_B2: Tensor
    factors_B: Tensor
    luts_BG: Tensor
    kernels_BK: Tensor
    reach_B: Tensor
    noise_B3: Tensor
    holes_BN4: Tensor
    shade_Bhw: Tensor | None
    fill: int
    factors: npt.NDArray[np.int32]
    taps: list[int]
    noisy: bool

    def __len__(self) -> int:
        return len(self.factors)


def take(
    device: torch.device,
    shape: tuple[int, int],
    *,
    affine: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.int32],
    factors: npt.NDArray[np.int32],
    luts: npt.NDArray[np.uint8],
    kernels: npt.NDArray[np.int32],
    noise: npt.NDArray[np.int32],
    holes: npt.NDArray[np.int32],
    shade: npt.NDArray[np.uint8] | None,
    fill: int,
) -> Drawn:
    """Arrays of the host as columns of one table on the device; nothing waits for it.

    affine: [B, 2, 3], rows x and y, 2^-16 pixels: pixel (x, y) of a view shows pixel
    `affine @ (x, y, 1)` of the image reduced by its factor [B]; bits below 2^-5 pixels are dropped.
    sizes: [B, 2], height and width of the image. luts: [B, 256], the grey that replaces each grey.
    kernels: [B, 2R + 1], symmetric, units of 1 / 256. noise: [B, 3], row and column of the tile and
    amplitude. holes: [B, N, 4] top, left, bottom, right, half open, painted with `fill`. shade:
    [B, h, w], what greys are multiplied by, units of 1 / 255; None for 255 everywhere.
    """
    radius = kernels.shape[1] // 2
    used = kernels != 0
    distance = np.abs(np.arange(-radius, radius + 1))
    reach = (used * distance).max(1).astype(np.int32)
    whole = [affine, sizes, factors, kernels, reach, noise, holes, luts]
    parts = [_columns(array) for array in whole]
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    table = _sent(np.concatenate(parts, 1), device)
    columns = [table[:, end - part.shape[1] : end] for part, end in zip(parts, ends, strict=True)]
    b = len(factors)
    return Drawn(
        shape,
        columns[0].view(b, 2, 3),
        columns[1],
        columns[2][:, 0],
        columns[7].view(torch.uint8),
        columns[3],
        columns[4][:, 0],
        columns[5],
        columns[6].view(b, holes.shape[1], 4),
        None if shade is None else _sent(shade, device),
        fill,
        factors,
        (np.flatnonzero(used.any(0)) - radius).tolist(),
        bool(b and noise[:, 2].any()),
    )


def _columns(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """[B, C] int32; greys go four to a number."""
    array = array if array.dtype == np.uint8 else array.astype(np.int32, copy=False)
    rows = np.ascontiguousarray(array).reshape(len(array), int(np.prod(array.shape[1:])))
    return rows.view(np.int32)


def _sent(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Through pinned memory where there is a GPU: else the copy would wait for it."""
    held = torch.from_numpy(np.ascontiguousarray(array))
    held = held.pin_memory() if device.type == "cuda" else held
    return held.to(device, non_blocking=True)
