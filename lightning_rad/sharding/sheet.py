"""Drawing a contact sheet: many images on one PNG, with captions, boxes and gaze."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.gaze import Map
from lightning_rad.modalities.radiograph import Pixels

SIDE: Final = 224
"""Side of a tile's picture, in pixels."""

CAPTION: Final = 18
"""Height of a tile's caption, in pixels."""

COLOURS: Final = {"boxes": "yellow", "fixations": "magenta", "maps at half their peak": "green"}
"""What is drawn over pictures, and how."""

_BOX: Final = (64, 220, 255)
_FIXATION: Final = (255, 64, 255)
_CONTOUR: Final = (64, 255, 64)
_TEXT: Final = (230, 230, 230)

_OF_A_SECOND: Final = 12.0
"""Radius in pixels of the circle of a fixation of one second; areas are as durations."""
_LEAST: Final = 1.5


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet, grey from 0 to all that its depth holds.

    boxes: label, x, y, w, h in pixels of the picture. fixations: (x, y, seconds) in fractions of
    it. map: where a predictor says that a reader would look, [S, S] over all of it.
    """

    pixels: Pixels
    caption: str
    boxes: Sequence[Mapping[str, Any]]
    fixations: Sequence[tuple[float, float, float]] = ()
    map: Map | None = None


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
    """[SIDE + CAPTION, SIDE, 3]: the picture fitted into the square, with what lies on it."""
    height, width = tile.pixels.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = tile.pixels.astype(np.float32) * (255 / np.iinfo(tile.pixels.dtype).max)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    picture = np.ascontiguousarray(np.repeat(small[:, :, None], 3, 2))
    if tile.map is not None:
        _draw_map(picture, tile.map)
    for box in tile.boxes:
        corner = (round(box["x"] * scale), round(box["y"] * scale))
        # the lines of a box that ends at the border lie on its last pixels
        right = min(round((box["x"] + box["w"]) * scale), size[0] - 1)
        bottom = min(round((box["y"] + box["h"]) * scale), size[1] - 1)
        cv2.rectangle(picture, corner, (right, bottom), _BOX, 1)
    for x, y, seconds in tile.fixations:
        radius = max(_LEAST, _OF_A_SECOND * seconds**0.5)
        # in sixteenths of a pixel, whose centres are whole numbers
        centre = (round((x * size[0] - 0.5) * 16), round((y * size[1] - 0.5) * 16))
        cv2.circle(picture, centre, round(radius * 16), _FIXATION, 1, cv2.LINE_AA, 4)
    canvas = np.zeros((SIDE + CAPTION, SIDE, 3), np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = picture
    at = (3, SIDE + CAPTION - 6)
    caption = tile.caption.encode("ascii", "replace").decode()
    cv2.putText(canvas, caption[:38], at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, _TEXT, 1, cv2.LINE_AA)
    return canvas


def _draw_map(picture: npt.NDArray[np.uint8], map_SS: Map) -> None:
    """The contour of where a map is at least half as high as at its peak."""
    whole = cv2.resize(map_SS, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    hot = (whole >= whole.max() / 2).astype(np.uint8)
    contours, _ = cv2.findContours(hot, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _CONTOUR, 1)
