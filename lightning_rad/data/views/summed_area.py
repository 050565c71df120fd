"""Sums of a map over many rectangles at once, by one table of running sums (Crow, 1984).

Shape letters: S side of a map, E = S + 1 edges of its cells, N rectangles.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def with_mass(map_SS: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """The map itself; None where nobody looked: no map, nothing above 0, anything not finite."""
    if map_SS is None or not np.isfinite(total := map_SS.sum(dtype=np.float64)) or total <= 0:
        return None
    return map_SS


def summed_area(map_SS: npt.NDArray[Any]) -> Floats:
    """[E, E] mass above and left of each corner of the cells; the last one is all of it."""
    single = map_SS.astype(np.float32 if map_SS.dtype == np.float32 else np.float64, copy=False)
    return np.asarray(cv2.integral(single, sdepth=cv2.CV_64F))


def mass_within(table_EE: Floats, boxes_N4: Floats) -> Floats:
    """[N] mass of rectangles (left, top, right, bottom) in fractions of the map's sides.

    Exact for a density that is constant over each cell: inside one the table grows with area, so it
    is bilinear between its corners. What lies outside the map has no mass.
    """
    edges = table_EE.shape[1]
    place = np.clip(boxes_N4.T, 0.0, 1.0)
    place *= np.array(table_EE.shape[::-1] * 2)[:, None] - 1
    low = np.minimum(place.astype(np.int64), np.array(table_EE.shape[::-1] * 2)[:, None] - 2)
    place -= low
    weight = np.stack([1.0 - place, place])  # [2, 4, N]: of the corner below, of that above
    weight[:, :2] *= -1.0
    corner = np.stack([low, low + 1])
    corner[:, 1::2] *= edges
    # all four corners of each rectangle, between four of the table each, in one gather
    across, down = corner[:, ::2].reshape(4, -1), corner[:, 1::2].reshape(4, -1)
    found = table_EE.ravel().take(down[:, None] + across[None])
    found *= weight[:, ::2].reshape(1, 4, -1)
    rows = found.sum(1)
    rows *= weight[:, 1::2].reshape(4, -1)
    return np.asarray(rows.sum(0))


def turned(map_SS: npt.NDArray[Any], size: tuple[int, int], degrees: float) -> npt.NDArray[Any]:
    """[S, S] the map as a picture shows it that is turned about its centre, its frame kept.

    size: height and width of the picture, whose fractions the cells are. degrees: as in
    `affine_map`: place t of the result shows place c + R (t - c) of the map, R clockwise on the
    screen. Bilinear between the centres of cells, to a 32nd of a cell; what was outside is 0.
    """
    if degrees == 0.0:
        return map_SS
    side, aspect = len(map_SS), size[1] / size[0]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[cos, -sin / aspect, 0.0], [sin * aspect, cos, 0.0]])
    matrix[:, 2] = (1.0 - matrix[:, :2].sum(1)) * (side - 1) / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    single = map_SS.astype(np.float32, copy=False)
    return np.asarray(cv2.warpAffine(single, matrix, (side, side), flags=flags, borderValue=0))
