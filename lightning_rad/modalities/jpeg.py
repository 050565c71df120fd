"""JPEG of 8 bits, strictly: a picture with missing rows is an error, not grey."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg

from lightning_rad.modalities.stored import UnreadableImageError, check_size

SIGNATURE = b"\xff\xd8\xff"


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """[H, W] of a grey file, [H, W, 3] (blue first) of another. Raises UnreadableImageError."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        check_size(height, width)
        space = "GRAY" if colorspace == "Gray" else "BGR"
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, space)
    except UnreadableImageError:
        raise
    except ValueError as error:
        kind = "truncated image" if "Premature end" in str(error) else "damaged image"
        raise UnreadableImageError(f"{kind}: {error}") from None
    return pixels[:, :, 0] if colorspace == "Gray" else pixels


def luma(data: bytes) -> npt.NDArray[np.uint8]:
    """The brightness of a JPEG in colour as it was stored, not computed back from RGB."""
    return np.asarray(simplejpeg.decode_jpeg(data, "GRAY"), np.uint8)[:, :, 0]
