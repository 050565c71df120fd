"""Telling a DICOM file by its first bytes."""

from __future__ import annotations

import struct


def is_dicom(data: bytes) -> bool:
    """Whether the first bytes are of a DICOM file, or of a data set without preamble and meta.

    The latter begin with an element of group 2 or 8, which no picture format does.
    """
    if data[128:132] == b"DICM":
        return True
    for order in "<>":
        if len(data) >= 8:
            group, element, length = struct.unpack_from(order + "HHI", data)
            explicit = data[4:6].isalpha() and data[4:6].isupper()
            plausible = explicit or (length % 2 == 0 and length <= 1024)
            if group in (2, 8) and element <= 0x1190 and plausible:
                return True
    return False
