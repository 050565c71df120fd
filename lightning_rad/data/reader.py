"""Decoded images by number, over one or several sets; what cannot be decoded is never silent."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from lightning_rad.data.decode import DecodeError, decode
from lightning_rad.data.source import BadSampleError, ShardSource

log = logging.getLogger(__name__)

_TRIES = 64
_GRACE = 1000


class TooManyBadSamplesError(ValueError):
    """More samples were unreadable than `data.loading.max_bad_fraction` allows."""


class Reader:
    """Reads and decodes images of some sources, numbered through in the order of the sources.

    max_bad_fraction: share of reads that may fail, measured against at least 1,000 reads, before
    TooManyBadSamplesError ends the run. Safe to use from many threads.
    """

    def __init__(self, sources: Sequence[ShardSource], *, max_bad_fraction: float = 0.01) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"max_bad_fraction must lie in [0, 1], got {max_bad_fraction}")
        self.sources = tuple(sources)
        self._first = (0, *accumulate(len(source.index.images) for source in self.sources))
        self._most = max_bad_fraction
        self._lock = threading.Lock()
        self._told: set[int] = set()
        self.reads = 0
        self.bad = 0

    def place(self, image: int) -> tuple[ShardSource, int]:
        """The source of an image and its number there."""
        part = bisect_right(self._first, image) - 1
        return self.sources[part], image - self._first[part]

    def pixels(self, image: int) -> npt.NDArray[np.uint8]:
        """[H, W], bright is dense. Raises BadSampleError, naming shard and key."""
        source, local = self.place(image)
        data, suffix = source.image(local)
        try:
            return decode(data, suffix)
        except DecodeError as error:
            study = int(source.index.images[local]["study"])
            raise BadSampleError(f"{source.name(study)}: {error}") from None

    def pixels_or_neighbour(self, image: int) -> tuple[npt.NDArray[np.uint8], int]:
        """The pixels of an image, or of the next readable one after it, and which one it was.

        A bad sample is counted every time, and logged with shard and key once.
        """
        last = self._first[-1]
        for step in range(min(_TRIES, last)):
            candidate = (image + step) % last
            try:
                pixels = self.pixels(candidate)
            except BadSampleError as error:
                self._count_bad(candidate, error)
                continue
            with self._lock:
                self.reads += 1
            return pixels, candidate
        raise TooManyBadSamplesError(f"{_TRIES} samples in a row are unreadable; see the log")

    def _count_bad(self, image: int, error: BadSampleError) -> None:
        with self._lock:
            self.reads += 1
            self.bad += 1
            new = image not in self._told
            self._told.add(image)
            over = self.bad > self._most * max(self.reads, _GRACE)
            counts = f"{self.bad} of {self.reads} reads"
        if new:
            log.warning("unreadable sample replaced by a neighbour: %s", error)
        if over:
            raise TooManyBadSamplesError(
                f"{counts} failed, more than data.loading.max_bad_fraction={self._most} allows; "
                f"the last: {error}. `lightning-rad shards verify` lists them all"
            )
