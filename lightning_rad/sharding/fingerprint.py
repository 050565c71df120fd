"""Finding the same picture twice: exact digests, perceptual fingerprints, and near pairs."""

from __future__ import annotations

import hashlib
import itertools
import math
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.radiograph import Pixels

BITS: Final = 256
"""Length of a fingerprint."""

NEAR: Final = 12
"""Hamming distance up to which two fingerprints show the same picture.

Measured on 960 frontal NIH radiographs: copies re-encoded (JPEG quality 30 to 95) or resized
(1024 down to 128 pixels, any filter) lie at most 11 apart, all but one in a hundred at most 8;
different images of different patients at least 28 (460,000 pairs), of the same patient 30.
"""

COARSE, FINE = 8, 17
"""Sides of the thumbnails."""

MIN_SET: Final = 24
"""A fingerprint with fewer set bits is of a nearly blank picture: it resembles all such."""


def digest_pixels(pixels: Pixels) -> str:
    """32 hexadecimal digits that are equal where depth, size and every grey level are."""
    head = f"{pixels.dtype.name} {pixels.shape[0]} {pixels.shape[1]} ".encode()
    state = hashlib.sha256(head)
    state.update(np.ascontiguousarray(pixels).data.cast("B"))
    return state.hexdigest()[:32]


def fingerprint(pixels: Pixels) -> str:
    """A 256-bit difference hash as 64 hexadecimal digits.

    128 bits compare horizontal neighbours of an 8 x 17 thumbnail, 128 vertical ones of a 17 x 8
    thumbnail; a bit is set where the step exceeds 1/255 of the thumbnail's range, so flat areas
    give zeros, not noise.
    """
    wide, tall = _thumbnails(pixels)
    rounding = 1e-3  # of float32 averages: all the contrast that a blank picture has
    across = np.diff(wide, axis=1) > max(np.ptp(wide) / 255, rounding)
    down = np.diff(tall, axis=0) > max(np.ptp(tall) / 255, rounding)
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes().hex()


def _thumbnails(pixels: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Means over 8 x 17 and over 17 x 8 equal cells.

    The picture is gone through once, as it is stored: sums of bands of rows, which end where a cell
    of either thumbnail does, are all that both need. Resizing floats costs more than decoding.
    """
    height, width = pixels.shape
    if min(height, width) < FINE:
        grey = np.ascontiguousarray(pixels, np.float64)
        sizes = ((FINE, COARSE), (COARSE, FINE))
        wide, tall = (cv2.resize(grey, size, interpolation=cv2.INTER_AREA) for size in sizes)
        return wide, tall
    cuts, to_wide, to_tall = _rows(height)
    depth = cv2.CV_32S if pixels.dtype == np.uint8 else cv2.CV_64F
    bands = (pixels[a:b] for a, b in itertools.pairwise(cuts))
    sums = np.concatenate([cv2.reduce(band, 0, cv2.REDUCE_SUM, dtype=depth) for band in bands])
    fine, coarse = _columns(width)
    return to_wide @ sums @ fine, to_tall @ sums @ coarse


@lru_cache(64)  # sets have few sizes
def _rows(height: int) -> tuple[list[int], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where bands of rows begin and end, and what each adds to 8 and to 17 rows of cells."""
    edges = (i * height / n for n in (COARSE, FINE) for i in range(n + 1))
    cuts = sorted({whole for edge in edges for whole in (math.floor(edge), math.ceil(edge))})
    return cuts, _shares(np.array(cuts), COARSE), _shares(np.array(cuts), FINE)


@lru_cache(64)
def _columns(width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What each column adds to 17 and to 8 columns of cells."""
    columns = np.arange(width + 1)
    return _shares(columns, FINE).T.copy(), _shares(columns, COARSE).T.copy()


def _shares(cuts: npt.NDArray[np.int64], cells: int) -> npt.NDArray[np.float64]:
    """[cells, pieces] for sums over the pieces between some cuts: what each adds to a cell's mean.

    A row of the picture that two cells share is a piece of its own.
    """
    size = cuts[-1] / cells
    left = (np.arange(cells) * size)[:, None]
    overlap = np.minimum(cuts[1:], left + size) - np.maximum(cuts[:-1], left)
    shares: npt.NDArray[np.float64] = np.maximum(overlap, 0) / np.diff(cuts) / size
    return shares


def near_pairs(
    left: list[str], right: list[str] | None = None, *, threshold: int = NEAR
) -> list[tuple[int, int, int]]:
    """Every pair (row of left, row of right, distance) at most `threshold` bits apart.

    Without `right` the pairs within `left`, each once. Found by banding: fingerprints within t
    bits agree on at least one of t + 1 disjoint bands, so only those are compared. Fingerprints
    with fewer than MIN_SET bits are left out.
    """
    a, rows_a = _informative(left)
    b, rows_b = (a, rows_a) if right is None else _informative(right)
    found: set[tuple[int, int, int]] = set()
    for band in range(threshold + 1):
        columns = slice(band, None, threshold + 1)  # interleaved: neighbours correlate
        i, j = _equal_rows(a[:, columns], b[:, columns])
        if right is None:
            i, j = i[i < j], j[i < j]
        distance = _distances(a, b, i, j)
        near = distance <= threshold
        triples = (rows_a[i[near]], rows_b[j[near]], distance[near])
        found.update(zip(*(t.tolist() for t in triples), strict=True))
    return sorted(found)


def _informative(fingerprints: list[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """The fingerprints as [N, 256] bits without the nearly blank ones, and their rows."""
    data = np.frombuffer(bytes.fromhex("".join(fingerprints)), np.uint8)
    bits = np.unpackbits(data.reshape(-1, BITS // 8), axis=1)
    rows = np.flatnonzero(bits.sum(axis=1) >= MIN_SET)
    return bits[rows], rows


def _equal_rows(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """All (i, j) with a[i] == b[j]."""
    weights = 1 << np.arange(a.shape[1], dtype=np.uint64)
    keys_a, keys_b = a @ weights, b @ weights
    order = np.argsort(keys_b, kind="stable")
    first = np.searchsorted(keys_b[order], keys_a, "left")
    count = np.searchsorted(keys_b[order], keys_a, "right") - first
    i = np.repeat(np.arange(len(a)), count)
    step = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, order[np.repeat(first, count) + step]


def _distances(
    a: npt.NDArray[np.uint8],
    b: npt.NDArray[np.uint8],
    i: npt.NDArray[np.intp],
    j: npt.NDArray[np.intp],
    block: int = 1 << 16,
) -> npt.NDArray[np.int64]:
    parts = [
        (a[i[s : s + block]] != b[j[s : s + block]]).sum(1, dtype=np.int64)
        for s in range(0, len(i), block)
    ]
    return np.concatenate([np.empty(0, np.int64), *parts])
