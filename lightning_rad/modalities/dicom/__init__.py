"""DICOM radiographs as grey levels that show what the header says they show.

pydicom and its decoders are the extra `dicom`; without it a DICOM file is refused by that name.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from lightning_rad.modalities.dicom.settings import DicomSettings
from lightning_rad.modalities.dicom.signature import is_dicom
from lightning_rad.modalities.stored import Header, StoredImage, UnreadableImageError

__all__ = ["DicomSettings", "decode_dicom", "identifying_values", "is_dicom", "read_header"]

EXTRA = "pip install 'lightning-rad[dicom]'"


def decode_dicom(data: bytes, settings: DicomSettings) -> StoredImage:
    """The picture of a DICOM file as it is meant to be seen, bright dense: see `grey`.

    Raises UnreadableImageError for what is no radiograph, by the rule of `settings`, for what is
    damaged, and for a missing decoder, naming it.
    """
    return _reading().decode(data, settings)  # type: ignore[no-any-return]


def read_header(path: Path, settings: DicomSettings) -> Header:
    """The header of a file whose picture `decode_dicom` would try; its pixels are not read.

    Raises UnreadableImageError.
    """
    return _reading().header_of(path, settings)  # type: ignore[no-any-return]


def identifying_values(path: Path) -> dict[str, str]:
    """What a header says of people and places: keyword -> value, {} for what is no DICOM file.

    Not for shards: to look whether it has got into them. Raises ValueError without the extra.
    """
    try:
        from lightning_rad.modalities.dicom import identifying  # noqa: PLC0415 (an extra)
    except ImportError:
        raise ValueError(f"to look for what DICOM headers say needs {EXTRA}") from None
    return identifying.values_of(path)


def _reading() -> ModuleType:
    try:
        from lightning_rad.modalities.dicom import reading  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UnreadableImageError(f"missing decoder: DICOM needs {EXTRA}") from None
    return reading
