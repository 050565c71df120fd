"""From a heat map to a box, pixel by pixel, after the training of VITA-Group/CheXT at 66cf142.

That scales the map from 0 to 1, takes what is above a half, and of its parts one, with a rectangle
around it. Which part (that of the peak), what becomes of it without one (`None`), and how finely
the map is looked at are what `KnowledgeContrast` and `box_of_heat` say of themselves.
"""

from __future__ import annotations

import math

Box = tuple[float, float, float, float]


def hot_box(heat: list[list[float]], size: tuple[int, int], threshold: float) -> Box | None:
    """left, top, right, bottom in pixels of a picture of this (height, width).

    None where there is nothing to see: a flat or empty map, one that is not finite, one that is hot
    all over.
    """
    if not all(math.isfinite(value) for row in heat for value in row):
        return None
    above_zero = [[max(value, 0.0) for value in row] for row in heat]
    if len({value for row in above_zero for value in row}) == 1:
        return None
    rows, columns = (min(side, 56) for side in size)
    fine = _enlarged(above_zero, rows, columns)
    lowest = min(min(row) for row in fine)
    highest = max(max(row) for row in fine)
    scaled = [[(value - lowest) / (highest - lowest) for value in row] for row in fine]
    places = [(y, x) for y in range(rows) for x in range(columns)]
    peak = max(places, key=lambda place: scaled[place[0]][place[1]])
    hot = {(y, x) for y, x in places if scaled[y][x] >= threshold}
    part, seen = [peak], {peak}
    for y, x in part:
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                beside = (y + dy, x + dx)
                if beside in hot and beside not in seen:
                    seen.add(beside)
                    part.append(beside)
    top, bottom = min(y for y, _ in part), max(y for y, _ in part) + 1
    left, right = min(x for _, x in part), max(x for _, x in part) + 1
    if (left, top, right, bottom) == (0, 0, columns, rows):
        return None
    height, width = size
    across, down = width / columns, height / rows
    return (left * across, top * down, right * across, bottom * down)


def _enlarged(map_: list[list[float]], rows: int, columns: int) -> list[list[float]]:
    """Bilinear, with centres of pixels on centres of pixels and borders that go on as they are."""
    made = []
    for y in range(rows):
        above, below, down = _between(y, rows, len(map_))
        line = []
        for x in range(columns):
            left, right, across = _between(x, columns, len(map_[0]))
            upper = (1 - across) * map_[above][left] + across * map_[above][right]
            lower = (1 - across) * map_[below][left] + across * map_[below][right]
            line.append((1 - down) * upper + down * lower)
        made.append(line)
    return made


def _between(place: int, new: int, old: int) -> tuple[int, int, float]:
    """The two old pixels beside a new one, and how far it is from the first to the second."""
    at = max((place + 0.5) * old / new - 0.5, 0.0)
    first = int(at)
    return first, min(first + 1, old - 1), at - first
