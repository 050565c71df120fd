"""What reading one image file gives, whatever its format, and why a file cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MAX_PIXELS: Final = 1 << 27
"""Above 134 megapixels a file is no radiograph, it is a decompression bomb."""

VIEWS: Final = {
    **{code: code for code in ("AP", "PA", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO")},
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT"), "LATERAL"),
}
"""View Position of a DICOM header -> word of the shard; what is not here is an unknown view."""


class UnreadableImageError(ValueError):
    """An image that cannot become [H, W] grey levels. The message is "kind: detail"."""


@dataclass(frozen=True, slots=True)
class Header:
    """All that is kept of a DICOM header; no other tag leaves the reader.

    The first five identify people or studies: they serve to group, to join and to hash, are never
    written, and are not in the repr. Words are "" where unknown or not of the standard's alphabet.
    patient_age: years; 90 means older than 89. pixel_spacing: (rows, columns) apart, in mm.
    """

    patient_id: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    instance_uid: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    modality: str = ""
    view_position: str = ""
    laterality: str = ""
    body_part: str = ""
    patient_sex: str = ""
    patient_age: float | None = None
    bits_stored: int = 0
    pixel_spacing: tuple[float, float] | None = None
    photometric: str = ""

    @property
    def view(self) -> str:
        """The view as a shard names it: PA, AP, LATERAL, an oblique or decubitus, or ""."""
        return VIEWS.get(self.view_position, "")


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """pixels: [H, W] grey levels, bright is dense; the low `bits` are used. header: of DICOM."""

    pixels: Pixels
    bits: int
    header: Header | None = None


def check_size(height: int, width: int) -> None:
    """Raises UnreadableImageError for a picture that nobody should unpack."""
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(f"too large: {width} x {height} pixels, at most {MAX_PIXELS}")
