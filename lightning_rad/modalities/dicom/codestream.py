"""What a compressed frame says of itself, read before anything unpacks it."""

from __future__ import annotations

import struct

from lightning_rad.modalities.stored import UnreadableImageError, check_size

START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG (T.81) and JPEG-LS (T.87) that state the size of the picture."""


def check_frame(frame: bytes, height: int, width: int) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that is cut, or not of the header's size.

    A decoder allocates what the frame claims, whatever the header says. Raises
    UnreadableImageError.
    """
    found = _j2k_size(frame) or _jpeg_size(frame)
    if found is None:
        raise UnreadableImageError("damaged image: a compressed frame without a size")
    check_size(*found)
    if found != (height, width):
        raise UnreadableImageError("damaged image: header and compressed frame differ in size")
    # encoders pad to an even length with either byte
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise UnreadableImageError("truncated image: a compressed frame without its end")


def _j2k_size(frame: bytes) -> tuple[int, int] | None:
    """Of the SIZ marker (T.800, A.5.1), also inside the boxes of a JP2 file."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(frame) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    return bottom - top, right - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        size, _, height, width = struct.unpack_from(">HBHH", frame, place + 2)
        if marker in START_OF_FRAME:
            return height, width
        place += 2 + size
    return None
