"""Decoded images, and the reports that go with them, over one or several sets, by image number.

What cannot be decoded or read is never silent.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate, islice

import numpy as np
import numpy.typing as npt

from lightning_rad.data.decode import DecodeError, decode
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.modalities.reading import ReadReport

Pixels = list[npt.NDArray[np.uint8]]

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
        self._told: set[Hashable] = set()
        self._without: Counter[str] = Counter()
        self.reads = 0
        self.bad = 0

    def place(self, image: int) -> tuple[ShardSource, int]:
        """The source of an image and its number there."""
        part = bisect_right(self._first, image) - 1
        return self.sources[part], image - self._first[part]

    def _study(self, image: int) -> tuple[ShardSource, int]:
        source, local = self.place(image)
        return source, int(source.index.images[local]["study"])

    def pixels(self, image: int) -> npt.NDArray[np.uint8]:
        """[H, W], bright is dense. Raises BadSampleError, naming shard and key."""
        source, local = self.place(image)
        data, suffix = source.image(local)
        try:
            return decode(data, suffix)
        except DecodeError as error:
            raise BadSampleError(f"{source.name(self._study(image)[1])}: {error}") from None

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
            self._count_good()
            return pixels, candidate
        raise TooManyBadSamplesError(f"{_TRIES} samples in a row are unreadable; see the log")

    def row_or_neighbour(
        self, image_V: Sequence[int], read: Callable[[bytes], ReadReport]
    ) -> tuple[Pixels, list[int], ReadReport]:
        """The images that the views of one study show, which they are, and its report.

        Where an image or the report cannot be read, all of it is of the next study that has both,
        so that no image stands beside another study's report: views that would have shown different
        images do so as far as that study has them. Samples are counted and logged as by
        `pixels_or_neighbour`, one a study.

        read: of the bytes of a report; raises ValueError, with the reason, for one of no use.
        """
        wanted = list(image_V)
        for candidate in islice(self._rows_from(wanted), _TRIES):
            try:
                report = self._report(candidate[0], read)
                shown = {image: self.pixels(image) for image in dict.fromkeys(candidate)}
            except BadSampleError as error:
                source, study = self._study(candidate[0])
                self._count_bad(source.name(study), error)
                continue
            self._count_good()
            return [shown[image] for image in candidate], candidate, report
        raise TooManyBadSamplesError(f"{_TRIES} studies in a row are unreadable; see the log")

    def _report(self, image: int, read: Callable[[bytes], ReadReport]) -> ReadReport:
        source, study = self._study(image)
        data = source.report(study)
        try:
            return read(data)
        except ValueError as error:
            raise BadSampleError(f"{source.name(study)}: {error}") from None

    def _rows_from(self, image_V: list[int]) -> Iterator[list[int]]:
        """The row itself, then the same of each later study with report and images, and around."""
        yield image_V
        place_V = np.unique(image_V, return_inverse=True)[1]
        source, own = self._study(image_V[0])
        here = self.sources.index(source)
        for turn in range(len(self.sources) + 1):
            part = (here + turn) % len(self.sources)
            index = self.sources[part].index
            study_N = index.images["study"]
            told_N = index.studies["report_size"][study_N] > 0
            studies = np.unique(study_N[told_N])
            if turn == 0:
                studies = studies[studies > own]
            elif turn == len(self.sources):  # the source that it began in, up to the row itself
                studies = studies[studies < own]
            for study in studies:
                images = self._first[part] + np.flatnonzero(study_N == study)
                yield images[place_V % len(images)].tolist()

    def say_without(self, image: int, what: str, error: BadSampleError) -> None:
        """Count a study whose images count as without something that cannot be read.

        Each study once. Of the 1st, 10th, 100th and so on it is logged: a damaged set fills no log.
        """
        source, study = self._study(image)
        with self._lock:
            if (what, source.name(study)) in self._told:
                return
            self._told.add((what, source.name(study)))
            self._without[what] += 1
            count = self._without[what]
        if count == 1:
            log.warning("its images count as without %s: %s", what, error)
        elif str(count).strip("0") == "1":
            log.warning(
                "images of %d studies so far count as without %s (`lightning-rad shards verify` "
                "lists them all), the last: %s",
                count,
                what,
                error,
            )

    def _count_good(self) -> None:
        with self._lock:
            self.reads += 1

    def _count_bad(self, sample: Hashable, error: BadSampleError) -> None:
        with self._lock:
            self.reads += 1
            self.bad += 1
            new = sample not in self._told
            self._told.add(sample)
            over = self.bad > self._most * max(self.reads, _GRACE)
            counts = f"{self.bad} of {self.reads} reads"
        if new:
            log.warning("unreadable sample replaced by a neighbour: %s", error)
        if over:
            raise TooManyBadSamplesError(
                f"{counts} failed, more than data.loading.max_bad_fraction={self._most} allows; "
                f"the last: {error}. `lightning-rad shards verify` lists them all"
            )
