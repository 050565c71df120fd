"""How DICOM files are read: which are accepted, and what becomes black and white."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CHOICES: Final = ("first", "lut", "percentile")
"""Accepted for `window`, beside the number of a window."""


@dataclass(frozen=True, slots=True)
class DicomSettings:
    """`source.init_args.dicom` of a recipe.

    modalities: what is accepted as a radiograph (CR, DX, RG, RF, PX, MG, ...).
    window: "first": the file's first VOI LUT, else its first window, else the whole range of
        files of at most 8 bits, which were windowed before, and the percentiles of deeper ones;
        "lut": its first VOI LUT, "percentile": always the percentiles, N: its window number N,
        from 0. A file without the LUT or the window asked for is refused.
    percentiles: lower and upper, in percent of the pixels that are not padding.
    depth: 8, or 16 for 16-bit output where a window covers more than 256 levels.
    secondary_capture: accept Secondary Capture objects, such as sets made from PNG files.
    for_processing: accept unprocessed images, which are not meant to be looked at.
    """

    modalities: Sequence[str] = ("CR", "DX")
    window: int | str = "first"
    percentiles: Sequence[float] = (0.5, 99.5)
    depth: int = 8
    secondary_capture: bool = False
    for_processing: bool = False

    def __post_init__(self) -> None:
        words = self.modalities
        if isinstance(words, str) or not words or not all(map(_is_code, words)):
            raise ValueError(f"'modalities' is a list such as [CR, DX], not {words!r}")
        number = type(self.window) is int and self.window >= 0
        if not number and self.window not in CHOICES:
            accepted = f"{', '.join(CHOICES)} and the number of a window, from 0"
            raise ValueError(f"'window' is {self.window!r}; accepted are {accepted}")
        if not _are_percentiles(self.percentiles):
            raise ValueError(f"'percentiles' are two of 0 to 100, rising, not {self.percentiles!r}")
        if self.depth not in (8, 16):
            raise ValueError(f"'depth' is {self.depth!r}; accepted are 8 and 16")
        for key in ("secondary_capture", "for_processing"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"'{key}' is true or false, not {getattr(self, key)!r}")
        object.__setattr__(self, "modalities", tuple(words))
        object.__setattr__(self, "percentiles", tuple(map(float, self.percentiles)))


def _is_code(word: object) -> bool:
    return isinstance(word, str) and re.fullmatch("[A-Z]{2,16}", word) is not None


def _are_percentiles(pair: object) -> bool:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        return False
    if not all(isinstance(p, int | float) and not isinstance(p, bool) for p in pair):
        return False
    return bool(0 <= pair[0] < pair[1] <= 100)
