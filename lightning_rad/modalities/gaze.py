"""Where readers looked: fixations become a density over the picture, and that a line of text.

Shape letters: K fixations, S side of a map.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.radiograph import decode_image

Source = Literal["recorded", "predicted", "both", "shuffled"]
Map = npt.NDArray[np.float32]

SIDES: Final = (8, 256)
SPREADS: Final = (0.005, 0.2)

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_REACH: Final = 6.0
"""Standard deviations beyond which a Gaussian has no mass (2e-9 of it)."""
_STEPS: Final = 12000


@dataclass(frozen=True)
class Saliency:
    """Which maps of attention are read, and how fine they are.

    Args:
        source: recorded: of a reader's fixations; predicted: those that `shards annotate` wrote;
            both: recorded where there are any, else predicted; shuffled: the map of another
            patient's image, which is the control.
        side: Cells along each side of a map, 8 to 256.
        spread: Standard deviation of the Gaussian that a fixation becomes, 0.005 to 0.2 of the
            picture's longer side. One degree of sight at 60 cm from a picture 30 cm high is 0.035;
            MicEye's kernel of 99 pixels on 800 is 0.019.
    """

    source: Source = "both"
    side: int = 64
    spread: float = 0.03

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(f"saliency.source: '{self.source}' is not one of {get_args(Source)}")
        for key, value, (low, high) in (
            ("side", self.side, SIDES),
            ("spread", self.spread, SPREADS),
        ):
            if not low <= value <= high:
                raise ValueError(
                    f"saliency.{key}: {value} is out of range; accepted: {low} to {high}"
                )


def heat_map(
    fixations: Sequence[tuple[float, float, float]],
    size: tuple[int, int],
    *,
    side: int,
    spread: float,
) -> Map | None:
    """[S, S] density of attention over the whole picture, of sum 1; None where nobody looked.

    fixations: (x, y, seconds) in fractions of the picture's width and height. Those outside [0, 1),
    those that are not finite and those without a duration do not count. size: height and width of
    the picture in pixels; cells are fractions of ITS sides. Each fixation is a Gaussian, round in
    pixels, of `spread` times the longer side, weighed by its seconds and integrated over each cell
    (exact to 1e-7 however small it is beside a cell). What it has beyond the border is lost before
    the sum is made 1. Raises ValueError for sides below 1.
    """
    height, width = size
    if min(size) < 1:
        raise ValueError(f"a picture of {height} x {width} pixels has no map of attention")
    x_K, y_K, seconds_K = inside(fixations).T
    if not len(x_K):
        return None
    sigma = spread * max(height, width)
    across_KS = _shares(x_K, sigma / width, side)
    down_KS = _shares(y_K, sigma / height, side)
    map_SS = (down_KS * (seconds_K / seconds_K.max())[:, None]).T @ across_KS
    return np.asarray(map_SS / map_SS.sum(), np.float32)


def inside(fixations: Sequence[tuple[float, float, float]]) -> npt.NDArray[np.float64]:
    """[K, 3] x, y, seconds of the fixations that count."""
    rows_K3 = np.asarray(fixations, np.float64).reshape(-1, 3)
    with np.errstate(invalid="ignore"):
        seen = (rows_K3[:, :2] >= 0).all(1) & (rows_K3[:, :2] < 1).all(1)
        return rows_K3[seen & (rows_K3[:, 2] > 0) & np.isfinite(rows_K3[:, 2])]


def packed(map: npt.NDArray[Any]) -> str:
    """A map [S, S], of any scale, in text: base64 of an 8-bit PNG whose brightest cell is 255.

    Raises ValueError for a map that is not square, of a side out of range, not finite or negative.
    """
    if map.ndim != 2 or map.shape[0] != map.shape[1] or not SIDES[0] <= len(map) <= SIDES[1]:
        raise ValueError(f"a map of attention is [S, S], S {SIDES[0]} to {SIDES[1]}: {map.shape}")
    values = map.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("a map of attention is finite and not negative")
    grey = np.rint(values * (255.0 / (values.max() or 1.0))).astype(np.uint8)
    _, data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return base64.b64encode(data.tobytes()).decode()


def unpacked(text: str) -> Map:
    """The map [S, S] that `packed` made text of, of sum 1; all zeros where it is black.

    Raises ValueError, with the reason, for anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError("saliency: not base64") from None
    # its size is in the header: a map must not cost the memory of what it claims to be
    if data[:8] != _PNG or len(data) < 24:
        raise ValueError("saliency: not a PNG")
    sides = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if sides[0] != sides[1] or not SIDES[0] <= sides[0] <= SIDES[1]:
        raise ValueError(f"saliency: {sides[0]} x {sides[1]} cells, accepted: {SIDES} and square")
    try:
        grey = decode_image(data).pixels
    except ValueError as error:
        raise ValueError(f"saliency: {error}") from None
    if grey.dtype != np.uint8:
        raise ValueError("saliency: 16 bits a cell, accepted are 8")
    total = int(grey.sum(dtype=np.int64))
    return np.asarray(grey / max(total, 1), np.float32)


def _shares(centre_K: npt.NDArray[Any], sigma: float, side: int) -> npt.NDArray[np.float64]:
    """[K, S] of a Gaussian's mass along one axis, cell by cell."""
    below, rise = _normal()
    steps = _STEPS / (2 * _REACH * sigma) * (np.arange(side + 1) / side - centre_K[:, None])
    # interpolated by hand for speed (np.interp searches): 12,000 steps leave an error of 3e-8
    place_KE = np.clip(steps + _STEPS / 2, 0, _STEPS)
    first_KE = place_KE.astype(np.int64)
    shares_KS = np.diff(below[first_KE] + (place_KE - first_KE) * rise[first_KE], axis=1)
    return np.asarray(np.maximum(shares_KS, 0.0))


@lru_cache(maxsize=1)
def _normal() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The normal distribution function on a fine grid, and how much each step adds to it."""
    places = np.linspace(-_REACH, _REACH, _STEPS + 1)
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in places])
    below[0], below[-1] = 0.0, 1.0
    return below, np.append(np.diff(below), 0.0)
