"""Drawing a contact sheet: many images on one PNG, with captions and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.radiograph import Pixels

SIDE: Final = 224
"""Side of a tile's picture, in pixels."""

CAPTION: Final = 18
"""Height of a tile's caption, in pixels."""

_BOX: Final = (64, 220, 255)
_TEXT: Final = (230, 230, 230)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet, grey from 0 to all that its depth holds.

    boxes: label, x, y, w, h in pixels of the picture.
    """

    pixels: Pixels
    caption: str
    boxes: Sequence[Mapping[str, Any]]


def write_sheet(path: Path, tiles: Sequence[Tile], *, columns: int = 6) -> None:
    """Write the tiles row by row into a PNG. Raises ValueError where that is impossible."""
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((max(rows, 1) * (SIDE + CAPTION), columns * SIDE, 3), np.uint8)
    for place, tile in enumerate(tiles):
        y, x = place // columns * (SIDE + CAPTION), place % columns * SIDE
        sheet[y : y + SIDE + CAPTION, x : x + SIDE] = _draw(tile)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() != ".png" or not cv2.imwrite(str(path), sheet):
        raise ValueError(f"sheet: cannot write '{path}'; give the name of a .png file")


def _draw(tile: Tile) -> npt.NDArray[np.uint8]:
    """[SIDE + CAPTION, SIDE, 3]: the picture fitted into the square, its boxes, its caption."""
    height, width = tile.pixels.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = tile.pixels.astype(np.float32) * (255 / np.iinfo(tile.pixels.dtype).max)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    canvas = np.zeros((SIDE + CAPTION, SIDE, 3), np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small[:, :, None]
    for box in tile.boxes:
        corner = (round(left + box["x"] * scale), round(top + box["y"] * scale))
        opposite = (
            round(left + (box["x"] + box["w"]) * scale),
            round(top + (box["y"] + box["h"]) * scale),
        )
        cv2.rectangle(canvas, corner, opposite, _BOX, 1)
    at = (3, SIDE + CAPTION - 6)
    caption = tile.caption.encode("ascii", "replace").decode()
    cv2.putText(canvas, caption[:38], at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, _TEXT, 1, cv2.LINE_AA)
    return canvas
