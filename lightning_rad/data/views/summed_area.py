"""Sums of a map over many rectangles at once, by one table of running sums (Crow, 1984).

Shape letters: S side of a map, E = S + 1 edges of its cells, N rectangles.
"""

from __future__ import annotations

from typing import Any

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
    table_EE = np.zeros((map_SS.shape[0] + 1, map_SS.shape[1] + 1))
    np.cumsum(np.cumsum(map_SS, 0, dtype=np.float64), 1, out=table_EE[1:, 1:])
    return table_EE


def mass_within(table_EE: Floats, boxes_N4: Floats) -> Floats:
    """[N] mass of rectangles (left, top, right, bottom) in fractions of the map's sides.

    Exact for a density that is constant over each cell. What lies outside the map has no mass.
    """
    left, top, right, bottom = boxes_N4.T
    whole = _at(table_EE, right, bottom) - _at(table_EE, left, bottom)
    return whole - _at(table_EE, right, top) + _at(table_EE, left, top)


def turned(map_SS: npt.NDArray[Any], size: tuple[int, int], degrees: float) -> Floats:
    """[S, S] the map as a picture shows it that is turned about its centre, its frame kept.

    size: height and width of the picture, whose fractions the cells are. degrees: as in
    `affine_map`: place t of the result shows place c + R (t - c) of the map, R clockwise on the
    screen. Bilinear between the centres of cells; what was outside is 0.
    """
    if degrees == 0.0:
        return map_SS.astype(np.float64)
    side, aspect = len(map_SS), size[1] / size[0]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    off = np.arange(side) - (side - 1) / 2
    x = np.add.outer(-sin / aspect * off, cos * off) + (side - 1) / 2
    y = np.add.outer(cos * off, sin * aspect * off) + (side - 1) / 2
    framed = np.zeros((side + 3, side + 3))  # a cell of nothing around, two where it is read beyond
    framed[1:-2, 1:-2] = map_SS
    x, y = np.clip(x + 1, 0, side + 1), np.clip(y + 1, 0, side + 1)
    column, row = x.astype(np.int64), y.astype(np.int64)
    x -= column
    y -= row
    upper = framed[row, column] * (1 - x) + framed[row, column + 1] * x
    lower = framed[row + 1, column] * (1 - x) + framed[row + 1, column + 1] * x
    return np.asarray(upper * (1 - y) + lower * y)


def _at(table_EE: Floats, x_N: Floats, y_N: Floats) -> Floats:
    """The table between its corners: bilinear, for inside a cell mass grows with area."""
    sides = np.array(table_EE.shape)[:, None] - 1
    place = np.clip(np.stack([y_N, x_N]), 0.0, 1.0) * sides
    low = np.minimum(place.astype(np.int64), sides - 1)
    (down, across), (row, column) = place - low, low
    upper = table_EE[row, column] * (1 - across) + table_EE[row, column + 1] * across
    lower = table_EE[row + 1, column] * (1 - across) + table_EE[row + 1, column + 1] * across
    return np.asarray(upper * (1 - down) + lower * down)
