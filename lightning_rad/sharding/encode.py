"""One radiograph as a shard stores it: checked, shrunk, compressed, described."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
import simplejpeg

from lightning_rad.modalities.radiograph import Pixels
from lightning_rad.schema import Box, Fixation, Radiograph
from lightning_rad.sharding.fingerprint import digest_pixels, fingerprint
from lightning_rad.sharding.recipe import ImageSettings


def fault_of(radiograph: Radiograph, findings: Collection[str] | None) -> str | None:
    """Why an image cannot go into a shard, or None."""
    pixels = radiograph.pixels
    if pixels.ndim != 2 or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
        return f"wrong pixels: {pixels.dtype} {pixels.shape}, accepted is [H, W] uint8 or uint16"
    if not 1 <= radiograph.bits <= 8 * pixels.itemsize or int(pixels.max()) >> radiograph.bits:
        return f"pixels exceed their bits: {int(pixels.max())} in {radiograph.bits} bits"
    for finding, value in radiograph.labels.items():
        if value not in (0, 1, None):
            return f"label out of range: {finding} is {value}, accepted are 0, 1 and null"
        if findings is not None and finding not in findings:
            return f"unknown finding: {finding} is not among the recipe's labels"
    if not all(_is_sound(f) for f in radiograph.fixations):
        return "damaged gaze: a fixation that is not finite or of negative duration"
    return None


def _is_sound(fixation: Fixation) -> bool:
    values = (fixation.x, fixation.y, fixation.seconds)
    return all(math.isfinite(v) for v in values) and fixation.seconds >= 0


def encode_image(
    radiograph: Radiograph, settings: ImageSettings
) -> tuple[str, bytes, dict[str, Any], list[str]]:
    """One image as it is stored, shrunk where the recipe says so.

    Returns its suffix, its bytes, its entry in the JSON, and a reason for each box refused.
    """
    pixels = shrink(radiograph.pixels, settings.short_side)
    bits = radiograph.bits
    pixels = fill_depth(pixels, bits)
    height, width = pixels.shape
    boxes, faults = [], []
    scale = (width / radiograph.pixels.shape[1], height / radiograph.pixels.shape[0])
    for box in radiograph.boxes:
        clipped = clip(box, scale, width, height)
        if clipped is None:
            faults.append("degenerate box: no part of it lies in the image")
        else:
            boxes.append(clipped)
    if pixels.dtype == np.uint8 and settings.quality is not None:
        suffix = "jpg"
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels)[:, :, None], settings.quality, "GRAY", "Gray"
        )
    else:
        suffix = "png"
        data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
    entry = {
        "view": radiograph.view,
        "height": height,
        "width": width,
        "bits": bits,
        "labels": dict(sorted(radiograph.labels.items())),
        "boxes": boxes,
        "pixels": digest_pixels(radiograph.pixels),
        "fingerprint": fingerprint(radiograph.pixels),
    }
    return suffix, data, entry, faults


def shrink(pixels: Pixels, short_side: int | None) -> Pixels:
    """Area-averaged (hence antialiased) so that the short side is `short_side`; never enlarged."""
    height, width = pixels.shape
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    shrunk: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return shrunk


def fill_depth(pixels: Pixels, bits: int) -> Pixels:
    """Shifted up, without loss, so that `bits` low bits use all of 8 bits, or of 16 where deeper.

    Readers then need not know `bits`: full scale is that of the file.
    """
    if bits <= 8:
        return pixels.astype(np.uint8, copy=False) << np.uint8(8 - bits)
    return pixels.astype(np.uint16, copy=False) << np.uint16(16 - bits)


def clip(
    box: Box, scale: tuple[float, float], width: int, height: int
) -> dict[str, str | float] | None:
    """A box scaled with its image and cut at its border, in pixels; None where nothing is left."""
    if not all(math.isfinite(v) for v in (box.x, box.y, box.w, box.h)):
        return None
    left, right = (min(max(v * scale[0], 0.0), width) for v in (box.x, box.x + box.w))
    top, bottom = (min(max(v * scale[1], 0.0), height) for v in (box.y, box.y + box.h))
    x, y, w, h = (round(v, 2) for v in (left, top, right - left, bottom - top))
    if w <= 0 or h <= 0:
        return None
    return {"label": box.label, "x": x, "y": y, "w": w, "h": h}
