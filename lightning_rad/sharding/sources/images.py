"""Where the files of a source lie, and how their pixels are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, Final

import numpy as np

from lightning_rad.modalities.dicom import DicomSettings
from lightning_rad.modalities.radiograph import Pixels, UnreadableImageError, read_image
from lightning_rad.sharding.fields import strictly

PACKED: Final = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")
"""Suffixes of archives, for which a user may have forgotten to be asked."""

MANY: Final = 64
"""More places than these are listed once, instead of looking for each file in each of them."""

SAMPLE: Final = 1 << 16
"""At most so many pixels, evenly over the image, settle its percentiles."""


@dataclass(frozen=True, slots=True)
class Images:
    """What there is to say of image files.

    places: folders below the root, which may hold wildcards; a file is taken from the first that
    has it. percentiles: images of more than 8 bits become 8-bit, black and white at these
    percentiles of their own pixels: for sets whose files use an unknown part of their range. dicom:
    how DICOM files are read, see `modalities.dicom.DicomSettings`. parts: cell of `columns.part` ->
    left, top, right and lower border, in fractions of the file, of what the image is of it: for
    files that show several things, such as both knees.
    """

    places: str | Sequence[str] = (".",)
    percentiles: Sequence[float] | None = None
    dicom: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strictly(DicomSettings, self.dicom, "source.init_args.folders.dicom")
        for name, borders in self.parts.items():
            if not _is_part(borders):
                raise ValueError(
                    f"'parts.{name}' is {borders!r}; accepted are left, top, right and lower "
                    "border in fractions of the file, 0 to 1"
                )
        if self.percentiles is not None:
            try:
                low, high = (float(p) for p in self.percentiles)
            except (TypeError, ValueError):
                low, high = 1.0, 0.0
            if not 0 <= low < high <= 100:
                raise ValueError(
                    f"'percentiles' must be two numbers in 0 to 100, the lower one first, "
                    f"got {self.percentiles!r}"
                )


class ImageFiles:
    """The files below a root, in the places that `settings` names."""

    def __init__(self, root: Path, settings: Images) -> None:
        self._root, self._settings = root, settings
        self._dicom = DicomSettings(**settings.dicom)
        self._found: list[Path] | None = None
        self._index: dict[str, Path] | None = None
        self._parts = {str(name): borders for name, borders in settings.parts.items()}

    def check(self) -> None:
        """Raise ValueError, in one line, where the root or all places are none."""
        if self._root.is_file():
            raise ValueError(f"root: {self._root} is a file, not a folder; unpack an archive first")
        try:
            names = sorted(entry.name for entry in self._root.iterdir())
        except OSError as error:
            raise ValueError(f"root: {self._root}: {error.strerror}") from None
        if not self._places():
            packed = next((name for name in names if name.endswith(PACKED)), None)
            hint = f"; {packed} is there: unpack it" if packed else ""
            raise ValueError(f"folders: {self._root} has no {' or '.join(self._names())}{hint}")

    def find(self, name: str) -> Path | None:
        """The file of a name, in the first place that has it."""
        places = self._places()
        if len(places) > MANY and "/" not in name:
            if self._index is None:
                self._index = {p.name: p for place in reversed(places) for p in place.iterdir()}
            found = self._index.get(name)
            return found if found is not None and found.is_file() else None
        paths = (place / name for place in places)
        return next((path for path in paths if path.is_file()), None)

    def pixels(
        self, name: str, *, bits: int | None, inverted: bool, part: str = ""
    ) -> tuple[Pixels, int, str]:
        """Pixels, their bits, and the view that the file itself says. Raises UnreadableImageError.

        bits: of 16-bit files that do not say so themselves. inverted: small values are bright;
        DICOM files know that themselves. part: see `Images.parts`, "" for all of the file.
        """
        path = self.find(name)
        if path is None:
            raise UnreadableImageError("missing file")
        stored = read_image(path, bits=bits, dicom=self._dicom)
        pixels, depth = stored.pixels, stored.bits
        if self._settings.percentiles is not None and depth > 8:
            low, high = self._settings.percentiles
            pixels, depth = eight_bits(pixels, low, high), 8
        if inverted and stored.header is None:
            pixels = inverse(pixels, depth)
        if part:
            pixels = cut_out(pixels, self._parts[part])
        return pixels, depth, stored.header.view if stored.header else ""

    def check_part(self, part: str) -> None:
        """Raise ValueError for the name of no part."""
        if part and part not in self._parts:
            raise ValueError("unknown part: in the column of columns.part, none of folders.parts")

    def _names(self) -> Sequence[str]:
        places = self._settings.places
        return [places] if isinstance(places, str) else places

    def _places(self) -> list[Path]:
        """The folders that there are, found once."""
        if self._found is None:
            matches = (m for name in self._names() for m in sorted(glob(name, root_dir=self._root)))
            self._found = [self._root / m for m in matches if (self._root / m).is_dir()]
        return self._found


def eight_bits(pixels: Pixels, low: float, high: float) -> Pixels:
    """[H, W] uint8: 0 at one percentile of the pixels and 255 at the other, cut off beyond."""
    step = max(1, int(np.sqrt(pixels.size / SAMPLE)))
    black, white = np.percentile(pixels[::step, ::step], (low, high))
    scaled = (pixels.astype(np.float32) - black) * (255.0 / max(float(white - black), 1.0))
    grey: Pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return grey


def cut_out(pixels: Pixels, borders: Sequence[float]) -> Pixels:
    """[h, w] pixels between borders, in fractions of the picture; parts that touch share none."""
    height, width = pixels.shape
    left, top, right, bottom = borders
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    cut: Pixels = pixels[rows, columns].copy()
    if not cut.size:
        raise UnreadableImageError("too small: a part of it has no pixel")
    return cut


def inverse(pixels: Pixels, bits: int) -> Pixels:
    """Small values become the large ones of `bits` bits, and large ones small."""
    negative: Pixels = np.subtract((1 << bits) - 1, pixels, dtype=pixels.dtype)
    return negative


def _is_part(borders: object) -> bool:
    if isinstance(borders, str) or not isinstance(borders, Sequence) or len(borders) != 4:
        return False
    if not all(isinstance(b, int | float) and not isinstance(b, bool) for b in borders):
        return False
    left, top, right, bottom = borders
    return bool(0 <= left < right <= 1 and 0 <= top < bottom <= 1)


def images_from(folders: Sequence[str] | Mapping[str, Any]) -> Images:
    """What a recipe's `folders` says: the places, or the keys of `Images`."""
    given = folders if isinstance(folders, Mapping) else {"places": folders}
    return strictly(Images, given, "source.init_args.folders")
