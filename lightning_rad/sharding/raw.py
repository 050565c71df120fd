"""The raw tier: shards once more, every image shrunk and stored as its pixels.

A pixel is a byte and nothing is compressed (binary PGM, 8 bits), so that reading an image is
looking at mapped memory. 700,000 images of 256 x 256 take 46 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Manifest
from lightning_rad.sharding.encode import shrink
from lightning_rad.sharding.rewrite import Rewriting, rewrite
from lightning_rad.sharding.rewritten_shard import Study

Greys = npt.NDArray[np.uint8]
Decode = Callable[[bytes, str], Greys]
"""The bytes of an image and its suffix -> [H, W]; ValueError where they are no readable image."""

SUFFIX: Final = "pgm"
UNREADABLE: Final = "unreadable image, kept as it was"
_LEAST_BOX: Final = 0.01
"""Pixels; boxes are written to hundredths of one."""


def cache(
    shards: Path,
    out: Path,
    decode: Decode,
    *,
    short_side: int,
    threads: int,
    batch: int = 64,
    overwrite: bool = False,
) -> Manifest:
    """Write shards anew, each image decoded, shrunk and stored as its pixels.

    Keys, order, splits, labels, reports and gaze stay as they are; boxes shrink with their image.
    An image that cannot be decoded stays as it was and is counted.

    Args:
        shards: Folder that `shards build` wrote.
        out: Folder of the new shards; made where missing.
        decode: How a reader of the shards decodes an image.
        short_side: Images are shrunk to it, averaging areas, and never enlarged.
        threads: Threads that decode and shrink.
        batch: Images that are held at a time, more by a study at most.
        overwrite: Replace whatever shards lie in `out`.

    Continues after a crash and raises ValueError as `rewrite` does.
    """
    for name, value in (("short_side", short_side), ("threads", threads), ("batch", batch)):
        if value < 1:
            raise ValueError(f"cache.{name}: {value} is not at least 1")
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(threads) as pool:

        def change(studies: Sequence[Study]) -> list[tuple[str, str]]:
            wanted = [(s.members[p.suffix], p.kind) for s in studies for p in s.pictures]
            made = iter(
                list(pool.map(lambda image: _raw(image[0], image[1], decode, short_side), wanted))
            )
            return [fault for study in studies for fault in _change(study, lambda: next(made))]

        how = Rewriting(
            name="cached",
            details={"short_side": short_side},
            left="undecoded",
            change=change,
            batch=batch,
        )
        return rewrite(shards, out, how, overwrite=overwrite)


def pgm(greys: Greys) -> bytes:
    """A binary PGM of 8 bits."""
    height, width = greys.shape
    return b"P5\n%d %d\n255\n" % (width, height) + greys.tobytes()


_Raw = tuple[bytes, tuple[int, int], tuple[int, int]]
"""The PGM, and height and width before and after."""


def _raw(data: bytes, kind: str, decode: Decode, short_side: int) -> _Raw | None:
    try:
        greys = decode(data, kind)
    except ValueError:
        return None
    shrunk: Any = shrink(greys, short_side)
    return pgm(shrunk), (greys.shape[0], greys.shape[1]), shrunk.shape


def _change(study: Study, made: Callable[[], _Raw | None]) -> list[tuple[str, str]]:
    """Replace the images of a study by their pixels; `made` gives them in order."""
    body, faults = study.record(), []
    entries = {entry["file"]: entry for entry in body["images"]}
    members: dict[str, bytes] = {}
    pictures = {picture.suffix for picture in study.pictures}
    for suffix, data in study.members.items():
        raw = made() if suffix in pictures else None
        if raw is None:
            members[suffix] = data
            if suffix in pictures:
                faults.append((f"{study.key} image {suffix}", UNREADABLE))
            continue
        name = f"{suffix.partition('.')[0]}.{SUFFIX}"
        members[name] = raw[0]
        _describe(entries[suffix], name, *raw[1:])
    study.members = members
    study.keep(body)
    return faults


def _describe(
    entry: dict[str, Any], name: str, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """What the record says of an image, said of its pixels."""
    entry |= {"file": name, "height": after[0], "width": after[1], "bits": min(8, entry["bits"])}
    scale = (after[1] / before[1], after[0] / before[0])
    entry["boxes"] = [_box(box, scale, after) for box in entry["boxes"]]


def _box(
    box: dict[str, Any], scale: tuple[float, float], size: tuple[int, int]
) -> dict[str, str | float]:
    """A box with its image; none is so small that it would be nothing."""
    shrunk: dict[str, str | float] = {"label": box["label"]}
    for start, extent, by, end in (("x", "w", scale[0], size[1]), ("y", "h", scale[1], size[0])):
        first = round(min(box[start] * by, end - _LEAST_BOX), 2)
        shrunk[start] = first
        shrunk[extent] = round(max(min(box[extent] * by, end - first), _LEAST_BOX), 2)
    return shrunk
