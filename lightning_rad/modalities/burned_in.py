"""Lines of text near the borders of a picture, where machines burn names and dates into it.

A help to a person who looks through them, no guarantee: it misses white text over bright tissue,
handwriting and lines of fewer than four letters. Markers of side (L, R) are not reported, being
shorter; words such as PORTABLE are.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.stored import Pixels

VERSION: Final = 1
"""Raised with each change to what is found."""

SIDE: Final = 1536
"""Pictures are looked at with this long side at most."""

LETTERS: Final = 4
"""Letters or digits that make a line."""

BORDER: Final = 0.2
"""A line counts whose middle lies within this share of the width or height from a side."""

CONTRAST: Final = 70
"""Grey levels of 255 that a letter stands above, or below, what is around it."""

UNEVEN: Final = 60
"""Grey levels by which the ink of one letter may differ."""


class Region(NamedTuple):
    """Where a line stands: fractions of width and height, (x, y) the upper left corner."""

    x: float
    y: float
    w: float
    h: float


class _Glyph(NamedTuple):
    x: int
    y: int
    w: int
    h: int


def text_regions(pixels: Pixels, bits: int = 8) -> list[Region]:
    """The lines of a picture's border that look like text. pixels: [H, W], the low `bits` used."""
    grey = (pixels >> max(bits - 8, 0)).astype(np.uint8)
    scale = min(1.0, SIDE / max(grey.shape))
    if scale < 1:
        grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    height, width = grey.shape
    thick = max(7, round(min(height, width) * 0.018) | 1)  # strokes are thinner
    kernel = np.ones((thick, thick), np.uint8)
    lines: list[Region] = []
    for operation, core in ((cv2.MORPH_TOPHAT, (50, 90)), (cv2.MORPH_BLACKHAT, (10, 50))):
        strokes = np.asarray(cv2.morphologyEx(grey, operation, kernel))
        for line in _lines(_glyphs(strokes, grey, core)):
            x, y = min(g.x for g in line), min(g.y for g in line)
            right, bottom = max(g.x + g.w for g in line), max(g.y + g.h for g in line)
            box = (x / width, y / height, (right - x) / width, (bottom - y) / height)
            region = Region(*(round(value, 4) for value in box))
            if _at_border(region):
                lines.append(region)
    return sorted(lines)


def _at_border(region: Region) -> bool:
    middle = (region.x + region.w / 2, region.y + region.h / 2)
    return any(not BORDER < place < 1 - BORDER for place in middle)


def _glyphs(
    strokes: npt.NDArray[np.uint8], grey: npt.NDArray[np.uint8], core: tuple[int, int]
) -> list[_Glyph]:
    """Connected strokes of the size of letters, each of nearly one grey level.

    core: percentiles of a stroke's levels between which its ink lies, its blurred edge outside.
    """
    mask = (strokes > CONTRAST).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    low, high = max(6, 0.006 * grey.shape[0]), 0.06 * grey.shape[0]
    found = []
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[label])
        if not (low <= h <= high and w <= 1.4 * h and 0.12 <= area / (w * h) <= 0.95):
            continue
        levels = grey[y : y + h, x : x + w][labels[y : y + h, x : x + w] == label]
        if np.ptp(np.percentile(levels, core)) <= UNEVEN:
            found.append(_Glyph(x, y, w, h))
    return found


def _lines(glyphs: list[_Glyph]) -> list[list[_Glyph]]:
    """Glyphs side by side, alike in height, evenly close: at least LETTERS of them."""
    rest = sorted(glyphs)
    lines: list[list[_Glyph]] = []
    while rest:
        line, others = [rest[0]], list[_Glyph]()
        for glyph in rest[1:]:
            (line if _follows(line[-1], glyph) else others).append(glyph)
        rest = others
        if len(line) >= LETTERS and _even(line):
            lines.append(line)
    return lines


def _follows(one: _Glyph, other: _Glyph) -> bool:
    tall = max(one.h, other.h)
    level = abs((one.y + one.h) - (other.y + other.h)) <= 0.25 * tall  # on one base line
    return (
        level and tall <= 1.6 * min(one.h, other.h) and 0 <= other.x - one.x - one.w <= 1.5 * tall
    )


def _even(line: list[_Glyph]) -> bool:
    """Whether the letters are of more than one width or distance: grids and rulers are not."""
    steps = [b.x - a.x for a, b in pairwise(line)]
    return np.ptp(steps) > 0.1 * np.mean(steps) or len({g.w for g in line}) > 1
