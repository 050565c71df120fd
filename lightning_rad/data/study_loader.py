"""Studies with their reports for evaluation: each once, in order, in equal batches over ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import torch

from lightning_rad.data.ahead import expect_next
from lightning_rad.data.batch import Submit
from lightning_rad.data.dealing import Ints, chosen, in_batches, share_of
from lightning_rad.data.labelled import labels_of
from lightning_rad.data.reader import Reader
from lightning_rad.data.report_rows import ReportRows
from lightning_rad.data.settings import Evaluation
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.units import units_of
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.modalities.reading import Reading, ReadReport, decode_report
from lightning_rad.schema import Reports, StudyBatch, ViewBatch

log = logging.getLogger(__name__)


class LabelledStudies:
    """Batches of the studies of one index that have a report and an image, for one rank.

    At most `settings.studies` of them, chosen by hash, are dealt out as `LabelledImages` deals
    images; a repeat is known by `unit`, its row in the index. Their reports are read at once, none
    mirrored. One in which nothing is left to read leaves its study out, counted and logged; what
    cannot be read, report or image, is an error here, for a metric over what happens to be
    readable is no metric.

    reading: how reports are read. views: V, of each study; view v shows image v modulo its images.
    """

    def __init__(
        self,
        source: ShardSource,
        labels: Sequence[str],
        settings: Evaluation,
        *,
        reading: Reading,
        views: int,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 2,
    ) -> None:
        self._source, self._labels = source, tuple(labels)
        self._reader, self._view = Reader([source]), settings.view
        self._views, self._threads = views, threads
        self._batch = max(1, settings.batch // views)
        self._limits = {name: words.limit for name, words in reading.words.items()}
        self._units = units_of(source.index, "study", source.index.studies["report_size"] > 0)
        lead = self._units.image[self._units.first[:-1]]
        self._study = source.index.images["study"][lead].astype(np.int64)  # of each unit
        units = chosen("studies", np.arange(len(self._units)), settings.studies)
        self._reports = self._read(units, reading)
        self._dealt = share_of(np.array(list(self._reports), np.int64), rank, ranks)

    def __len__(self) -> int:
        return math.ceil(len(self._dealt) / self._batch)

    def __iter__(self) -> Iterator[StudyBatch]:
        return in_batches(self._dealt, self._batch, self._begin, threads=self._threads)

    def _read(self, units: Ints, reading: Reading) -> dict[int, ReadReport]:
        """The reports by unit, of those that say anything."""
        said: dict[int, ReadReport] = {}
        index = self._source.index
        shards = np.unique(index.shard_of_study[self._study[units]])
        for unit in units.tolist():
            study = int(self._study[unit])
            expect_next(self._source, shards, int(index.shard_of_study[study]))
            data = self._source.report(study)
            try:
                decode_report(data)
            except ValueError as error:
                raise BadSampleError(f"{self._source.name(study)}: {error}") from None
            try:
                said[unit] = reading(data, flipped=False, draw=0)
            except ValueError:  # of a text in which nothing is left
                continue
        if empty := len(units) - len(said):
            log.warning(
                "%s: the reports of %d of %d studies say nothing that is read; these studies are "
                "left out of evaluation",
                self._source.index.place(0).rpartition("/")[0],
                empty,
                len(units),
            )
        return said

    def _begin(self, units: Ints, submit: Submit) -> tuple[StudyBatch, list[Future[None]]]:
        first, count = self._units.first[units], np.diff(self._units.first)[units]
        image_VB = self._units.image[first + np.arange(self._views)[:, None] % count]
        shape = (*image_VB.shape, 1, *self._view.shape)
        views = ViewBatch(
            views=torch.empty(shape, dtype=torch.uint8),
            unit=torch.from_numpy(self._study[units]),
            patient=torch.from_numpy(self._units.patient[units]),
            image=torch.from_numpy(image_VB),
            report=self._tensors(units),
        )
        batch = StudyBatch(views, torch.empty((len(units), len(self._labels))))
        tasks = [submit(self._fill, batch, row, int(unit)) for row, unit in enumerate(units)]
        return batch, tasks

    def _tensors(self, units: Ints) -> Reports:
        rows = ReportRows(np.zeros(len(units), np.bool_), self._limits)
        for row, unit in enumerate(units.tolist()):
            rows.put(row, self._reports[unit])
        return rows.tensors()

    def _fill(self, batch: StudyBatch, row: int, unit: int) -> None:
        """Decode and render the views of one study, and join its images' labels; on a thread."""
        image_V = batch.views.image[:, row].tolist()
        pixels = {image: self._reader.pixels(image) for image in dict.fromkeys(image_V)}
        zero, slots = np.zeros(1, np.int64), batch.views.views.numpy()
        for view, image in enumerate(image_V):
            sizes = np.array([pixels[image].shape])
            drawn = self._view.draw(sizes, seed=0, epochs=zero, units=zero, view=0)
            render_cpu(pixels[image], drawn, 0, slots[view, row, 0])
        own = self._units.image[self._units.first[unit] : self._units.first[unit + 1]]
        said = [labels_of(self._source, int(image)) for image in own]
        values = [[s.get(name) for s in said] for name in self._labels]
        batch.labels.numpy()[row] = [_joined(value) for value in values]


def _joined(values: Sequence[int | None]) -> float:
    """1 where any image says 1, else 0 where any says 0, else NaN."""
    known = [value for value in values if value is not None]
    return float(max(known)) if known else np.nan
