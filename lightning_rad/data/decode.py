"""Bytes of a shard member to pixels: grayscale, uint8, once, and strict about damage."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from lightning_rad.data.views.params import MAX_SIDE

MAX_PIXELS: Final = 2**26
"""Largest image decoded, in pixels: twice the largest mammogram, far below a decompression bomb."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

_PGM_HEADER: Final = re.compile(rb"P5\s(\d{1,9})\s(\d{1,9})\s255\s")
"""Width and height of a binary PGM of 8 bits, as the raw tier writes it: no comments."""


class DecodeError(ValueError):
    """Bytes that are not a whole, readable image of a sensible size; the message says why."""


def decode(data: bytes | memoryview, suffix: str) -> npt.NDArray[np.uint8]:
    """[H, W] greys of a JPEG, PNG or binary PGM; colour is reduced to its luma, alpha is dropped.

    suffix: "jpg", "jpeg", "png" or "pgm", in either case. Of a PNG of 16 bits 65535 becomes 255:
    shards store shallower images shifted up to the full depth. Of a PGM, whose pixels are bytes,
    the result is a read-only view of `data`, not a copy.

    A JPEG has no checksum: a flipped bit inside its entropy-coded data often gives wrong pixels
    instead of an error. Whether shards are as they were written is for their sha256 to say.
    """
    kind = suffix.lower()
    if kind == "pgm":
        return _view_pgm(data)
    if kind in {"jpg", "jpeg"}:
        return _decode_jpeg(data)
    if kind == "png":
        return _decode_png(bytes(data))
    raise DecodeError(f"suffix '{suffix}' is not an image's; accepted: jpg, jpeg, png, pgm")


def _view_pgm(data: bytes | memoryview) -> npt.NDArray[np.uint8]:
    header = _PGM_HEADER.match(data)
    if header is None:
        raise DecodeError("not a readable PGM: no header of a binary one of 8 bits")
    width, height = int(header[1]), int(header[2])
    _check_size(height, width)
    pixels = len(data) - header.end()
    if pixels != height * width:
        raise DecodeError(f"not a readable PGM: {pixels} of {height * width} pixels")
    return np.frombuffer(data, np.uint8, offset=header.end()).reshape(height, width)


def _decode_jpeg(data: bytes | memoryview) -> npt.NDArray[np.uint8]:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width)
        if colours.upper() in {"CMYK", "YCCK"}:
            raise DecodeError(f"a JPEG in {colours}; accepted: grayscale, RGB or YCbCr")
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except DecodeError:
        raise
    except ValueError as error:
        raise DecodeError(f"not a readable JPEG: {error}") from None
    return pixels[:, :, 0]


def _decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    _check_png(data)
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DecodeError(f"not a readable PNG: {error.err}") from None
    if pixels is None:
        raise DecodeError("not a readable PNG: its compressed data are damaged")
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535)
    return np.asarray(pixels, np.uint8)


def _check_png(data: bytes) -> None:
    """Walk the chunks (PNG specification, section 5): lengths, checksums, size, end."""
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        raise DecodeError("not a readable PNG: no header")
    width, height = struct.unpack(">II", data[16:24])
    _check_size(height, width)
    start, kind = 8, b""
    while kind != b"IEND":
        if len(data) < start + 12:
            raise DecodeError("not a readable PNG: it ends too early")
        (length,) = struct.unpack(">I", data[start : start + 4])
        stop = start + 8 + length
        kind, check = data[start + 4 : start + 8], data[stop : stop + 4]
        if len(check) < 4:
            raise DecodeError("not a readable PNG: it ends too early")
        if zlib.crc32(memoryview(data)[start + 4 : stop]) != int.from_bytes(check, "big"):
            raise DecodeError(f"not a readable PNG: checksum of chunk {kind!r} is wrong")
        start = stop + 4


def _check_size(height: int, width: int) -> None:
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise DecodeError(
            f"{height} x {width} pixels; accepted: 1 to {MAX_SIDE} a side, {MAX_PIXELS} in all"
        )
