"""Image files of a source as grayscale arrays: what is read, what is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.depth import PNG, settle_depth, tiff_size
from lightning_rad.modalities.dicom import DicomSettings, decode_dicom, is_dicom
from lightning_rad.modalities.jpeg import SIGNATURE, decode_jpeg, luma
from lightning_rad.modalities.stored import (
    MAX_PIXELS,
    Header,
    Pixels,
    StoredImage,
    UnreadableImageError,
    check_size,
)

__all__ = [
    "MAX_PIXELS",
    "Header",
    "Pixels",
    "StoredImage",
    "UnreadableImageError",
    "decode_image",
    "read_image",
]

COLOURED: Final = 16
"""Grey levels between a pixel's channels from which on it counts as coloured."""

MAX_COLOURED: Final = 0.05
"""Share of coloured pixels (arrows, captions) that a radiograph stored in RGB may have."""


SIGNATURES: Final = (b"\x89PNG", b"II*\0", b"MM\0*", b"BM", b"RIFF", b"GIF8", b"\0\0\0\x0cjP")
"""First bytes of the formats, to tell a damaged image from a file that never was one."""

STANDARD: Final = DicomSettings()


def read_image(
    path: Path, *, bits: int | None = None, dicom: DicomSettings = STANDARD
) -> StoredImage:
    """Decode an image file, as `decode_image` does. Raises UnreadableImageError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("missing file") from None
    except OSError as error:
        raise UnreadableImageError(f"unreadable file: {error.strerror}") from None
    return decode_image(data, bits=bits, dicom=dicom)


def decode_image(
    data: bytes, *, bits: int | None = None, dicom: DicomSettings = STANDARD
) -> StoredImage:
    """Decode DICOM, JPEG, PNG, TIFF and what else OpenCV reads into [H, W] uint8 or uint16.

    bits: significant bits of a 16-bit file that does not say so itself (sBIT of PNG, BitsPerSample
    of TIFF); None: all 16. dicom: how DICOM files, known by their content, are read.

    Colour files are accepted where they are grey: at most 5 % of their pixels may be coloured.
    Orientation tags are not applied. Raises UnreadableImageError.
    """
    if not data:
        raise UnreadableImageError("empty file")
    if is_dicom(data):
        return decode_dicom(data, dicom)
    if data.startswith(SIGNATURE):
        jpeg = decode_jpeg(data)
        if jpeg.ndim == 3:
            if _is_coloured(jpeg):
                raise UnreadableImageError("wrong channels: a colour picture")
            jpeg = luma(data)
        return StoredImage(np.ascontiguousarray(jpeg), 8)
    pixels = _decode_other(data)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(f"wrong depth: {pixels.dtype}, accepted are uint8 and uint16")
    grey = np.ascontiguousarray(pixels if pixels.ndim == 2 else _grey_of(pixels))
    if grey.dtype == np.uint8:
        return StoredImage(grey, 8)
    return StoredImage(*settle_depth(data, grey, bits))


def _decode_other(data: bytes) -> npt.NDArray[np.generic]:
    if data.startswith(PNG):
        # Some OpenCV versions give a truncated PNG's missing rows as black, without an error.
        if b"IEND" not in data[-4096:]:
            raise UnreadableImageError("truncated image: a PNG without its end chunk")
        check_size(int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    check_size(*tiff_size(data))
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnreadableImageError(f"damaged image: {error.err}") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        known = data.startswith(SIGNATURES)
        raise UnreadableImageError("damaged image" if known else "not an image")
    check_size(pixels.shape[0], pixels.shape[1])
    return np.asarray(pixels)


def _grey_of(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """One channel of a file whose colour channels agree and whose alpha is opaque."""
    channels = pixels.shape[2]
    if channels == 4:
        alpha = pixels[:, :, 3]
        if alpha.min() != alpha.max():
            raise UnreadableImageError("wrong channels: a transparent picture")
    elif channels != 3:
        raise UnreadableImageError(f"wrong channels: {channels}, accepted are 1, 3 and 4")
    colour = pixels[:, :, :3]
    if _is_coloured(colour):
        raise UnreadableImageError("wrong channels: a colour picture")
    if np.array_equal(colour[:, :, 0], colour[:, :, 1]):
        return colour[:, :, 1]
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_BGR2GRAY))


def _is_coloured(pixels: npt.NDArray[np.generic]) -> bool:
    spread = np.ptp(pixels, axis=2)
    limit = COLOURED * (257 if pixels.dtype == np.uint16 else 1)
    return bool((spread > limit).mean() > MAX_COLOURED)
