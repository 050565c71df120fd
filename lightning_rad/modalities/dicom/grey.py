"""From stored values to what is seen: the grey-scale pipeline of DICOM, as one table.

In the order of PS3.3: stored value, Modality LUT or rescale (C.11.1), VOI LUT or window (C.11.2),
and the inversion of MONOCHROME1 (C.7.6.3.1.2) once, at the end. A stored value has at most 16
bits, so the whole chain is worked out in float64 for each value that can occur, then looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.dicom.settings import DicomSettings
from lightning_rad.modalities.stored import Pixels, UnreadableImageError

Levels: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = npt.NDArray[np.int32]

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """A look-up table (C.11.1.1.1): values below `first` have its first entry, those above the
    end its last; entries are of 0 to 2**bits - 1."""

    first: int
    bits: int
    entries: npt.NDArray[np.uint16]

    def __call__(self, values: Levels) -> Levels:
        """The entries of values."""
        place = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[place.astype(np.int64)], np.float64)

    @property
    def top(self) -> float:
        """The largest entry that can be."""
        return float((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True)
class Rescale:
    """slope * stored value + intercept (C.11.1.1.2)."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, values: Levels) -> Levels:
        """The rescaled values."""
        return values * self.slope + self.intercept


@dataclass(frozen=True, slots=True)
class Window:
    """Centre, width and VOI LUT Function; what they map to 0 is the darkest, to 1 the brightest."""

    centre: float
    width: float
    function: str

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise UnreadableImageError("damaged window: an unknown VOI LUT Function")
        least = 1.0 if self.function == "LINEAR" else 0.0
        sound = np.isfinite(self.centre) and np.isfinite(self.width)
        if not (sound and self.width >= least and self.width > 0):
            raise UnreadableImageError(f"damaged window: of width {self.width:g}")

    def __call__(self, values: Levels) -> Levels:
        """0 to 1. Formulas of C.11.2.1.2.1 (linear), C.11.2.1.3.1 (sigmoid), .3.2 (exact)."""
        centre, width = self.centre, self.width
        if self.function == "SIGMOID":
            power = np.clip(-4 * (values - centre) / width, -700, 700)
            return np.asarray(1 / (1 + np.exp(power)))
        if self.function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values > centre).astype(np.float64)
        return np.clip((values - centre) / width + 0.5, 0, 1)


@dataclass(frozen=True, slots=True)
class Transform:
    """What a header says of grey levels.

    low, high: the stored values that can be. padding: stored values, both ends included, that are
    no picture. luts: those of the file, in its order. windows: their (centre, width), which are
    checked when one is used. inverted: low values are bright.
    """

    low: int
    high: int
    padding: tuple[int, int] | None
    modality: Lut | Rescale
    luts: tuple[Lut, ...]
    windows: tuple[tuple[float, float], ...]
    function: str
    inverted: bool


def render(values: Values, transform: Transform, settings: DicomSettings) -> Pixels:
    """[H, W] of 8 bits, or of 16 where the settings ask for it and there is more to show.

    A level y of 0 to 1 becomes rint(255 y), or rint(65535 y). Padding is black. Raises
    UnreadableImageError.
    """
    lowest = int(values.min())
    place = np.subtract(values, lowest, dtype=np.intp)
    counts = np.bincount(place.ravel())
    stored = np.arange(lowest, lowest + len(counts))
    padding = np.zeros(len(stored), bool)
    if transform.padding is not None:
        padding = (stored >= transform.padding[0]) & (stored <= transform.padding[1])
    seen = (counts > 0) & ~padding
    if seen.sum() < 2:
        raise UnreadableImageError("blank picture: all its stored values are one")
    levels = transform.modality(stored.astype(np.float64))
    shown = _window(levels, np.where(padding, 0, counts), transform, settings)(levels)
    # the levels that the window does not crush into black or white, and these two
    covered = int(((shown > 0) & (shown < 1)).sum()) + 2
    deep = settings.depth == 16 and covered > 256
    top = 65535 if deep else 255
    if transform.inverted:
        shown = 1 - shown
    shown[padding] = 0
    table = np.rint(shown * top).astype(np.uint16 if deep else np.uint8)
    if np.ptp(table[seen]) == 0:
        raise UnreadableImageError("blank picture: its window leaves one grey level")
    pixels: Pixels = np.take(table, place)
    return pixels


class _Scaled:
    """A VOI LUT with its entries as 0 to 1."""

    def __init__(self, lut: Lut) -> None:
        self.lut = lut

    def __call__(self, values: Levels) -> Levels:
        return self.lut(values) / self.lut.top


def _window(
    levels: Levels, counts: npt.NDArray[np.int64], transform: Transform, settings: DicomSettings
) -> Window | _Scaled:
    """What maps the modality's values to 0 to 1, by the file or by its pixels."""
    wanted = settings.window
    if wanted in ("first", "lut") and transform.luts:
        return _Scaled(transform.luts[0])
    if wanted == "lut":
        raise UnreadableImageError("missing window: a file without a VOI LUT")
    if isinstance(wanted, int) and wanted >= len(transform.windows):
        found = len(transform.windows)
        raise UnreadableImageError(f"missing window: number {wanted} of {found}, from 0")
    if wanted != "percentile" and transform.windows:
        pair = transform.windows[wanted if isinstance(wanted, int) else 0]
        return Window(*pair, transform.function)
    if wanted == "first" and transform.high - transform.low < 256:
        low, high = _range(transform)
    else:
        low, high = _percentiles(levels, counts, settings)
    return Window((low + high) / 2, high - low, "LINEAR_EXACT")


def _range(transform: Transform) -> tuple[float, float]:
    """The lowest and highest value that the modality's transform can give."""
    if isinstance(transform.modality, Lut):
        return 0.0, transform.modality.top
    ends = transform.modality(np.array([transform.low, transform.high], np.float64))
    return float(ends.min()), float(ends.max())


def _percentiles(
    levels: Levels, counts: npt.NDArray[np.int64], settings: DicomSettings
) -> tuple[float, float]:
    """The smallest values that at least these shares of the pixels do not exceed.

    All values where that leaves a single one.
    """
    order = np.argsort(levels, kind="stable")
    order = order[counts[order] > 0]
    passed = np.cumsum(counts[order])
    wanted = np.asarray(settings.percentiles) / 100 * passed[-1]
    low, high = (float(levels[order[p]]) for p in np.searchsorted(passed, wanted - 1e-6))
    if low < high:
        return low, high
    low, high = float(levels[order[0]]), float(levels[order[-1]])
    if low == high:
        raise UnreadableImageError("blank picture: its modality transform leaves one value")
    return low, high
