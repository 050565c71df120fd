"""What a stored picture says beside its pixels, which should be nothing."""

from __future__ import annotations

import re
from typing import Final

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8"
PLAIN: Final = (b"IHDR", b"IDAT", b"IEND", b"sBIT", b"gAMA", b"PLTE", b"pHYs")
"""Chunks of PNG that hold numbers alone."""

_PGM: Final = re.compile(rb"P5\s(\d+)\s(\d+)\s(\d+)\s")


def picture_parts(data: bytes) -> tuple[str, bytes, str]:
    """(what it says, its codes, what is odd about it) of a JPEG, PNG or PGM.

    Said is what stands in parts for texts, and behind the end; that there is such a part is odd,
    since none is ever written.
    """
    if data.startswith(JPEG):
        said, code, odd = _jpeg(data)
    elif data.startswith(PNG):
        said, code, odd = _png(data)
    elif header := _PGM.match(data):
        width, height, top = (int(number) for number in header.groups())
        end = header.end() + width * height * (2 if top > 255 else 1)
        said, code, odd = data[end:], data[:end], ""
    else:
        said, code, odd = b"", data, "is no picture that is known"
    if not odd and said:
        odd = "has bytes behind its end"
    return said.decode("utf-8", "replace").replace("\0", " "), code, odd


def _jpeg(data: bytes) -> tuple[bytes, bytes, str]:
    """The segments (T.81, B.1.1.4) up to the scan; of APP0 "JFIF" and "JFXX" nothing is text."""
    said, code, place, odd = list[bytes](), list[bytes](), 2, ""
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + size]
        told = (0xE0 <= marker <= 0xEF or marker == 0xFE) and not body.startswith(
            (b"JFIF", b"JFXX")
        )
        (said if told else code).append(body)
        odd = odd or ("holds EXIF, a comment or the like" if told else "")
        place += 2 + max(size, 2)
    end = data.rfind(b"\xff\xd9")
    end = len(data) if end < place else end + 2
    return b" ".join([*said, data[end:]]).strip(b" "), b" ".join([*code, data[place:end]]), odd


def _png(data: bytes) -> tuple[bytes, bytes, str]:
    said, code, place, odd = list[bytes](), list[bytes](), len(PNG), ""
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        told = kind not in PLAIN
        (said if told else code).append(data[place + 8 : place + 8 + size])
        odd = odd or ("holds EXIF, a text or the like" if told else "")
        place += 12 + size
        if kind == b"IEND":
            break
    return b" ".join([*said, data[place:]]).strip(b" "), b" ".join(code), odd
