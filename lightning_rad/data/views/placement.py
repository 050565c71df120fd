"""Where points, boxes and maps of a picture are in a view: a drawn map of pixels, read backwards.

Places are continuous: the first pixel of a picture, or of a view, reaches from 0 to 1. What the
renderers do only to round (half a unit in the constant term) is taken back, so that places are
right to the last bit of the coefficients, for any factor, turn and mirror.

Shape letters: K points or boxes, S side of a map.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.params import ViewParams
from lightning_rad.kernels.render.units import FRACTION_BITS, UNIT_BITS

Floats = npt.NDArray[np.float64]

SEEN: Final = 0.5
"""Share of a box's area that a view has to show."""

_HALF_UNIT: Final = 1 << (UNIT_BITS - FRACTION_BITS - 1)


def seen_at(points_K2: npt.NDArray[Any], params: ViewParams, row: int) -> Floats:
    """[K, 2] places (x, y) in pixels of the view of points (x, y) in pixels of the picture.

    Points beyond the view get places beyond it; NaN stays NaN.
    """
    linear, constant = _shown(params, row)
    return np.asarray(np.linalg.solve(linear, np.asarray(points_K2, np.float64).T - constant).T)


def boxes_seen(boxes_K4: npt.NDArray[Any], params: ViewParams, row: int) -> Floats:
    """[K, 4] boxes (left, top, right, bottom) in pixels of the view, of such of the picture.

    The upright hull of the corners, clipped to the view. What lies beyond the picture is no part of
    a box. NaN in all four where the view shows less than SEEN of the box's area, or a box has none.
    """
    boxes_K4 = np.asarray(boxes_K4, np.float64)
    height, width = params.sizes[row].tolist()
    found = np.full(boxes_K4.shape, np.nan)
    inside_K4 = np.clip(boxes_K4, 0.0, [width, height, width, height])  # NaN stays
    corners_K42 = inside_K4[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    corners_K42 = seen_at(corners_K42.reshape(-1, 2), params, row).reshape(-1, 4, 2)
    out_h, out_w = params.shape
    solid_K = (inside_K4[:, 2:] > inside_K4[:, :2]).all(1)
    for number in np.flatnonzero(solid_K):
        corners = corners_K42[number].tolist()
        if _area(_cut(corners, out_w, out_h)) >= SEEN * _area(corners):
            hull = np.concatenate([corners_K42[number].min(0), corners_K42[number].max(0)])
            found[number] = np.clip(hull, 0.0, [out_w, out_h, out_w, out_h])
    return found


def map_seen(
    map_SS: npt.NDArray[Any], params: ViewParams, row: int, side: int
) -> npt.NDArray[np.float32]:
    """[side, side] what a map over the whole picture has at each cell of the view.

    Bilinear between the centres of cells, those at the border continued up to it; 0 beyond the
    picture. Values are the map's, not made smaller where the view magnifies: the share of the
    map's mass that the view shows is the sum, times the area that a cell of the view has in cells
    of the map, over the map's sum.
    """
    linear, constant = _shown(params, row)
    cells = np.array(map_SS.shape[::-1]) / params.sizes[row, ::-1]  # of the map, a picture's pixel
    pixels = np.array(params.shape[::-1]) / side  # of the view, a cell of the result
    matrix = np.empty((2, 3))
    matrix[:, :2] = cells[:, None] * linear * pixels
    # cell j has its centre at j + 1/2 of the view's cells, cell i of the map at i + 1/2
    matrix[:, 2] = cells * constant[:, 0] + matrix[:, :2].sum(1) / 2 - 0.5
    seen: npt.NDArray[np.float32] = cv2.warpAffine(
        map_SS.astype(np.float32, copy=False),
        matrix,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    _blacken_beyond(seen, matrix, map_SS.shape)
    return seen


def _shown(params: ViewParams, row: int) -> tuple[Floats, Floats]:
    """A place of the view to that of the picture which it shows: [2, 2] and [2, 1]."""
    affine, factor = params.affine[row].astype(np.float64), float(params.factors[row])
    scale = factor / 2.0**UNIT_BITS
    linear = affine[:, :2] * scale
    # pixels are read at whole numbers, places have their centres at halves: on both sides
    constant = (affine[:, 2] - _HALF_UNIT) * scale + 0.5 * factor - linear.sum(1) / 2
    return linear, constant[:, None]


def _blacken_beyond(seen: npt.NDArray[Any], matrix: Floats, shape: tuple[int, ...]) -> None:
    """Set to 0 what lies beyond the map, whose cells reach half a cell beyond their centres."""
    last = np.arange(len(seen), dtype=np.float64)
    for axis, size in enumerate((shape[1], shape[0])):
        across, down, first = matrix[axis]
        extremes = first + np.array([0.0, across, down, across + down]) * last[-1]
        if extremes.min() < -0.5 or extremes.max() >= size - 0.5:
            place = np.add.outer(down * last + first, across * last)
            seen[(place < -0.5) | (place >= size - 0.5)] = 0.0


def _cut(corners: list[list[float]], width: int, height: int) -> list[list[float]]:
    """The part of a convex polygon that lies in a view (Sutherland and Hodgman, 1974)."""
    for axis, bound, sign in ((0, 0, 1), (1, 0, 1), (0, width, -1), (1, height, -1)):
        kept: list[list[float]] = []
        for one, other in zip(corners, corners[1:] + corners[:1], strict=True):
            a, b = sign * (one[axis] - bound), sign * (other[axis] - bound)
            if a >= 0:
                kept.append(one)
            if (a >= 0) != (b >= 0):
                t = a / (a - b)
                kept.append([p + t * (q - p) for p, q in zip(one, other, strict=True)])
        corners = kept
    return corners


def _area(corners: list[list[float]]) -> float:
    """Of a polygon, whichever way around (shoelace formula)."""
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in pairs)) / 2
