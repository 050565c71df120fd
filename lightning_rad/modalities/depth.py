"""How many bits of a 16-bit PNG or TIFF are picture: read from the file, never guessed.

That no pixel of a file is above 4095 does not show that it has 12 bits: it may be a dark picture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

PNG = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC = 256, 257, 258, 262
WHITE_IS_ZERO = 0

Deep = npt.NDArray[np.uint16]


def settle_depth(data: bytes, pixels: Deep, stated: int | None = None) -> tuple[Deep, int]:
    """16-bit pixels with their value in the low bits and bright as dense, and how many bits.

    stated: the bits of a file that does not say so itself; None: all 16. sBIT of PNG (PNG
    specification, 11.3.2.4) says that samples were scaled up to the depth of the file, and TIFF of
    fewer than 16 bits is unpacked to the upper ones: both are shifted back. Writers that record
    the bits of samples they did not scale are understood where only that fits; a record that the
    pixels contradict is none.
    """
    if data.startswith(PNG):
        pixels, recorded = _settle(pixels, _significant_bits(data))
        return pixels, recorded or stated or 16
    tags = _tiff_tags(data)
    bits = tags.get(BITS_PER_SAMPLE, 16)
    pixels, recorded = _settle(pixels, bits if 8 < bits < 16 else None)
    bits = recorded or stated or 16
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which OpenCV turns round for 8 bits alone
        pixels = np.asarray(pixels ^ np.uint16((1 << bits) - 1))
    return pixels, bits


def tiff_size(data: bytes) -> tuple[int, int]:
    """(height, width) that a TIFF claims, before it is unpacked; (0, 0) of another file."""
    tags = _tiff_tags(data)
    return tags.get(HEIGHT, 0), tags.get(WIDTH, 0)


def _settle(pixels: Deep, bits: int | None) -> tuple[Deep, int | None]:
    """Pixels shifted down to the bits that the file records, and those where that can be."""
    if bits is None or bits == 16:
        return pixels, bits
    spare = np.uint16(16 - bits)
    top = (pixels >> spare).astype(np.uint16)
    span = (1 << bits) - 1
    scaled = (
        (top << spare),
        (top << spare) | (top >> np.uint16(max(0, 2 * bits - 16))),
        ((top.astype(np.uint32) * 65535 * 2 + span) // (2 * span)).astype(np.uint16),
    )
    if any(np.array_equal(pixels, way) for way in scaled):
        return top, bits
    if int(pixels.max()) <= span:
        return pixels, bits
    return pixels, None


def _significant_bits(data: bytes) -> int | None:
    """The largest number of an sBIT chunk, which stands before the picture."""
    place = len(PNG)
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            return None
        if kind == b"sBIT":
            found = max(data[place + 8 : place + 8 + size], default=0)
            return found if 1 <= found <= 16 else None
        place += 12 + size
    return None


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first value of each short or long tag of a TIFF's first directory; {} of other files."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    try:
        return dict(_entries(data, order))
    except struct.error:
        return {}


def _entries(data: bytes, order: str) -> Iterator[tuple[int, Any]]:
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, place)
        if kind == 3:
            at = place + 8
            if values > 2:
                (at,) = struct.unpack_from(order + "I", data, place + 8)
            yield tag, struct.unpack_from(order + "H", data, at)[0]
        elif kind == 4 and values == 1:
            yield tag, struct.unpack_from(order + "I", data, place + 8)[0]
