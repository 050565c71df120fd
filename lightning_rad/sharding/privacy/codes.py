"""Words among bytes that are no text."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

_RUN: Final = re.compile(rb"[0-9A-Za-z._^/-]+")

_IN_RUN: Final = np.array([_RUN.fullmatch(bytes([byte])) is not None for byte in range(256)])


def runs(code: bytes, least: int) -> list[str]:
    """The stretches of at least `least`, a power of 2, ASCII letters, digits and . _ ^ / - in it.

    Among random bytes those of 8 are one in 90,000, which is what makes the search linear and fast.
    """
    long = _IN_RUN[np.frombuffer(code, np.uint8)]
    step = 1
    while step < least:
        if len(long) <= step:
            return []
        long = long[:-step] & long[step:]
        step *= 2
    found: list[str] = []
    end = 0
    for start in np.flatnonzero(long).tolist():
        match = _RUN.match(code, start) if start >= end else None
        if match is not None:
            end = match.end()
            found.append(match[0].decode())
    return found
