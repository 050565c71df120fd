"""How like our crops are to torchvision's of the same boxes, antialiased and not."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional

from benchmarks.loader_sets import picture
from benchmarks.loader_ways import SIZE
from benchmarks.report import Table
from lightning_rad.data.views.geometry import affine_map
from lightning_rad.data.views.params import only_geometry
from lightning_rad.data.views.render_cpu import render_cpu

PICTURES = 8
COLUMNS = ["picture", "box", "ours and antialiased", "ours and linear", "linear and antialiased"]
NOTE = """Root mean square of the difference in grey levels, over pictures with as much noise as
radiographs have. antialiased: PIL, as torchvision's RandomResizedCrop. linear: the same without.
Ours averages boxes of a whole factor and is linear from there, so that up to a factor of two it
is linear, and beyond near to the antialiased one."""
CASES = ((256, 200), (320, 200), (320, 300), (512, 300), (512, 400), (512, 470), (1024, 900))


def crops_table() -> Table:
    """Whole boxes of some sides out of pictures of some sides."""
    table = Table("Views compared", COLUMNS, note=NOTE)
    for side, box in CASES:
        ours, smooth, linear = (np.stack(views) for views in zip(*crops(side, box), strict=True))
        apart = [rms(ours, smooth), rms(ours, linear), rms(linear, smooth)]
        cells = [f"{side} px", f"{box} px", *(f"{value:.2f}" for value in apart)]
        table.rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return table


def crops(side: int, box: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ours, the antialiased one and the linear one of one box of each picture."""
    made = []
    for number in range(PICTURES):
        grey, corner = picture(number, side), (side - box) // 2
        smooth = functional.resized_crop(
            Image.fromarray(grey), corner, corner, box, box, [SIZE, SIZE]
        )
        cut = torch.from_numpy(grey[None, None, corner : corner + box, corner : corner + box])
        linear = functional.resize(cut, [SIZE, SIZE], antialias=False)
        made.append((ours(grey, corner, box), np.asarray(smooth), linear[0, 0].numpy()))
    return made


def ours(grey: np.ndarray, corner: int, box: int) -> np.ndarray:
    centre = np.full((1, 2), corner + box / 2)
    nothing = np.zeros(1)
    affine, factors = affine_map(
        centre,
        np.full((1, 2), float(box)),
        degrees=nothing,
        mirrored=nothing.astype(bool),
        shape=(SIZE, SIZE),
    )
    params = only_geometry((SIZE, SIZE), np.array([grey.shape]), affine, factors)
    out = np.empty((SIZE, SIZE), np.uint8)
    render_cpu(grey, params, 0, out)
    return out


def rms(one: np.ndarray, other: np.ndarray) -> float:
    """Away from the border, where some repeat what others take from beyond the box."""
    inside = np.s_[:, 2:-2, 2:-2]
    return float(np.sqrt(np.mean((one[inside].astype(float) - other[inside]) ** 2)))
