"""Image files of a source as grayscale arrays: what is read, what is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

Pixels: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MAX_PIXELS: Final = 1 << 27
"""Above 134 megapixels a file is no radiograph, it is a decompression bomb."""

COLOURED: Final = 16
"""Grey levels between a pixel's channels from which on it counts as coloured."""

MAX_COLOURED: Final = 0.05
"""Share of coloured pixels (arrows, captions) that a radiograph stored in RGB may have."""


SIGNATURES: Final = (b"\x89PNG", b"II*\0", b"MM\0*", b"BM", b"RIFF", b"GIF8", b"\0\0\0\x0cjP")
"""First bytes of the formats, to tell a damaged image from a file that never was one."""


class UnreadableImageError(ValueError):
    """An image that cannot become [H, W] grey levels. The message is "kind: detail"."""


def read_image(path: Path) -> Pixels:
    """Decode an image file into [H, W] uint8 or uint16. Raises UnreadableImageError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError("missing file") from None
    except OSError as error:
        raise UnreadableImageError(f"unreadable file: {error.strerror}") from None
    return decode_image(data)


def decode_image(data: bytes) -> Pixels:
    """Decode JPEG, PNG, TIFF and what else OpenCV reads into [H, W] uint8 or uint16.

    Colour files are accepted where they are grey: at most 5 % of their pixels may be coloured.
    Orientation tags are not applied. Raises UnreadableImageError.
    """
    if not data:
        raise UnreadableImageError("empty file")
    pixels = _decode_jpeg(data) if data[:3] == b"\xff\xd8\xff" else _decode_other(data)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(f"wrong depth: {pixels.dtype}, accepted are uint8 and uint16")
    grey = pixels if pixels.ndim == 2 else _grey_of(pixels)
    return np.ascontiguousarray(grey)


def _decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width)
        space = "GRAY" if colorspace == "Gray" else "BGR"
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space)
    except UnreadableImageError:
        raise
    except ValueError as error:
        kind = "truncated image" if "Premature end" in str(error) else "damaged image"
        raise UnreadableImageError(f"{kind}: {error}") from None
    if colorspace == "Gray":
        return pixels[:, :, 0]
    if not _is_coloured(pixels):  # the luma plane as it was stored, not computed back from RGB
        return np.asarray(simplejpeg.decode_jpeg(data, "GRAY"), np.uint8)[:, :, 0]
    return pixels


def _decode_other(data: bytes) -> npt.NDArray[np.generic]:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        # Some OpenCV versions give a truncated PNG's missing rows as black, without an error.
        if b"IEND" not in data[-4096:]:
            raise UnreadableImageError("truncated image: a PNG without its end chunk")
        _check_size(int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
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
    _check_size(pixels.shape[0], pixels.shape[1])
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


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(f"too large: {width} x {height} pixels, at most {MAX_PIXELS}")
