"""The door of pydicom: files, elements and frames become plain numbers and words here.

Errors of pydicom may repeat what a header says of a patient, so none is passed on, and its
warnings are not shown.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

from lightning_rad.modalities.dicom.frames import DEFLATED, IMPLICIT, stored_range, stored_values
from lightning_rad.modalities.dicom.grey import Lut, Rescale, Transform, render
from lightning_rad.modalities.dicom.header import header_from
from lightning_rad.modalities.dicom.rules import refusal
from lightning_rad.modalities.dicom.settings import DicomSettings
from lightning_rad.modalities.dicom.signature import is_dicom
from lightning_rad.modalities.stored import (
    MAX_PIXELS,
    Header,
    StoredImage,
    UnreadableImageError,
)

TAGS: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber"),
    *("PatientID", "PatientSex", "PatientAge", "Modality", "BodyPartExamined", "ViewPosition"),
    *("Laterality", "ImageLaterality", "PresentationIntentType", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"),
    *("BitsAllocated", "HighBit", "PixelSpacing", "ImagerPixelSpacing"),
)
"""What is read of a header, but for what grey levels mean."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def header_of(path: Path, settings: DicomSettings) -> Header:
    """The header of an acceptable file. Raises UnreadableImageError."""
    try:
        with path.open("rb") as file, _discreet():
            if not is_dicom(file.read(132)):
                raise UnreadableImageError("not an image: no DICOM file")
            file.seek(0)
            dataset = _parse(file, settings, stop_before_pixels=True, specific_tags=[*TAGS])
            return header_from(_values(dataset))
    except OSError as error:
        raise UnreadableImageError(f"unreadable file: {error.strerror}") from None


def decode(data: bytes, settings: DicomSettings) -> StoredImage:
    """See `decode_dicom`."""
    with _discreet():
        _refuse_inflation(data)
        dataset = _parse(BytesIO(data), settings)
        values = stored_values(dataset)
        pixels = render(values, _transform(dataset, settings), settings)
        return StoredImage(pixels, 8 * pixels.itemsize, header_from(_values(dataset)))


@contextmanager
def _discreet() -> Iterator[None]:
    """Without the words of pydicom, in warnings or errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (UnreadableImageError, OSError):
            raise
        except MemoryError:
            raise UnreadableImageError("too large: not enough memory to read it") from None
        except Exception as error:
            kind = type(error).__name__
            raise UnreadableImageError(f"damaged image: a malformed DICOM file ({kind})") from None


def _parse(file: Any, settings: DicomSettings, **how: Any) -> Dataset:
    """The elements of a file that is a radiograph. Raises UnreadableImageError."""
    try:
        dataset = pydicom.dcmread(file, force=True, **how)
    except EOFError:
        raise UnreadableImageError("truncated image: the file ends within an element") from None
    values = _values(dataset)
    if not {"SOPClassUID", "Modality", "Rows"} & values.keys():
        raise UnreadableImageError("not an image: no DICOM file")
    reason = refusal(values, settings)
    if reason is not None:
        raise UnreadableImageError(reason)
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = IMPLICIT[dataset.original_encoding]
    return dataset


def _refuse_inflation(data: bytes) -> None:
    """A deflated data set is unpacked by pydicom as a whole, whatever comes out of it."""
    if DEFLATED.encode() not in data[:2048] or data[128:132] != b"DICM":
        return
    start = 144 + int.from_bytes(data[140:144], "little")  # behind group 2, whose length this is
    unpacker, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), data[start:], 0
    while rest and not unpacker.eof:
        size += len(unpacker.decompress(rest, 1 << 20))
        rest = unpacker.unconsumed_tail
        if size > 2 * MAX_PIXELS + (1 << 24):
            raise UnreadableImageError("too large: a deflated file that grows beyond any picture")


def _values(dataset: Dataset) -> dict[str, Any]:
    """Keyword -> value, of the elements of TAGS that are there and say something."""
    found = {tag: dataset.get(tag) for tag in TAGS}
    return {tag: value for tag, value in found.items() if value not in (None, "", [])}


def _transform(dataset: Dataset, settings: DicomSettings) -> Transform:
    """What the header says of grey levels. Raises UnreadableImageError."""
    signed = dataset.get("PixelRepresentation") == 1
    low, high = stored_range(dataset)
    little = dataset.original_encoding[1]
    tables = dataset.get("ModalityLUTSequence") or []
    modality: Lut | Rescale = Rescale(*_numbers(dataset, "RescaleSlope", "RescaleIntercept"))
    if tables:
        modality = _lut(tables[0], signed, little)
    reached = modality(np.array([low, high], np.float64))
    luts = dataset.get("VOILUTSequence") or [] if settings.window in ("first", "lut") else []
    return Transform(
        low=low,
        high=high,
        padding=_padding(dataset, signed),
        modality=modality,
        luts=tuple(_lut(item, bool(reached.min() < 0), little) for item in luts[:1]),
        windows=_windows(dataset),
        function=str(dataset.get("VOILUTFunction") or "LINEAR").strip(),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1"
        or dataset.get("PresentationLUTShape") == "INVERSE",
    )


def _numbers(dataset: Dataset, *tags: str) -> Iterator[float]:
    """Slope and intercept, 1 and 0 where the file has none."""
    for tag, default in zip(tags, (1.0, 0.0), strict=True):
        value = dataset.get(tag)
        number = default if value in (None, "") else float(value)
        if not np.isfinite(number) or (default and not number):
            raise UnreadableImageError("damaged header: a rescale slope or intercept of no use")
        yield number


def _padding(dataset: Dataset, signed: bool) -> tuple[int, int] | None:
    """The stored values that are no picture (PS3.3, C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value in (None, ""):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_integer(v, signed) for v in (value, value if limit in (None, "") else limit)]
    return min(ends), max(ends)


def _integer(value: object, signed: bool) -> int:
    """A US or SS, as the pixels are, whichever the file wrote it as."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(str(value))
    number &= 0xFFFF
    return number - 0x10000 if signed and number >= 0x8000 else number


def _windows(dataset: Dataset) -> tuple[tuple[float, float], ...]:
    pairs = []
    for tag in ("WindowCenter", "WindowWidth"):
        value = dataset.get(tag)
        several = isinstance(value, pydicom.multival.MultiValue)
        cells = list(value) if several else [value]
        pairs.append([float(cell) for cell in cells if cell not in (None, "")])
    if len(pairs[0]) != len(pairs[1]):
        raise UnreadableImageError("damaged window: not as many centres as widths")
    return tuple(zip(*pairs, strict=True))


def _lut(item: Dataset, signed: bool, little: bool) -> Lut:
    """A table of a Modality or VOI LUT Sequence (PS3.3, C.11.1.1.1); signed: what it is fed."""
    count, first, bits = (_integer(number, False) for number in item.LUTDescriptor)
    count = count or 0x10000
    if not 1 <= bits <= 16:
        raise UnreadableImageError("damaged LUT: entries of no number of bits")
    entries = _entries(item.LUTData, count, bits, little)
    if len(entries) < count:
        raise UnreadableImageError("damaged LUT: fewer entries than its descriptor says")
    needed = int(entries[:count].max()).bit_length()
    return Lut(_integer(first, signed), max(bits, needed), entries[:count])


def _entries(data: object, count: int, bits: int, little: bool) -> npt.NDArray[np.uint16]:
    """16 bits an entry, or, of at most 8, two in each word with the first in the lower byte."""
    if isinstance(data, bytes):
        data = data[: len(data) // 2 * 2]
        words = np.frombuffer(data, "<u2" if little else ">u2").astype(np.uint16)
    else:
        words = np.atleast_1d(np.asarray(data)).astype(np.int64).astype(np.uint16)
    if bits <= 8 and len(words) == (count + 1) // 2:
        return words.astype("<u2").view(np.uint8).astype(np.uint16)
    return words
