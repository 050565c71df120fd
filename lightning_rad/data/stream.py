"""The stream: composes order, reader and views into rank-local batches, without end.

Its whole state is one position a set, counted in units of that set. Everything a batch holds is a
pure function of (seed, shards, groups, window, separation, images, flip, global batch, position)
and, where reports are read, of how: ranks take slices of one global batch, threads only decide who
computes which rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from lightning_rad.data.batch import Rows, StreamBatch, Submit, worker_threads
from lightning_rad.data.order import Order
from lightning_rad.data.reader import Pixels, Reader
from lightning_rad.data.report_rows import ReportRows, drawn_sentence, flips
from lightning_rad.data.settings import Loading
from lightning_rad.data.units import Images, Units, shown_images
from lightning_rad.data.unrendered import DrawnRows, assemble
from lightning_rad.data.views.mirror import mirrored
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.modalities.reading import Reading

Positions = tuple[int, ...]

_CHUNK: Final = 8
"""Rows of one task: enough to amortise a vectorised draw, few enough to share out evenly."""


@dataclass(frozen=True, slots=True)
class Part:
    """One set of shards in a stream: its order, its units, and its share of each global batch.

    first_unit, first_image: added to its own numbers to make them unique in the stream.
    """

    order: Order
    units: Units
    share: int
    first_unit: int = 0
    first_image: int = 0


class Stream:
    """Rank-local batches of the units of one or several sets.

    reader: decodes images by their number in the stream. views: one recipe a view, all of one
    size. images: whether the views of a unit show different images of it. loading: threads,
    batches ahead, and whether the device renders (then the batch holds images and parameters) or
    the threads do ("auto" is "cpu" here).

    To be set before batches are asked for, with the order to match: reading, by which the report
    of each unit is read, of parts whose units are images or studies with a report; flip, the
    probability that a unit is mirrored, all its views and its report together.
    """

    reading: Reading | None = None
    flip: float = 0.0

    def __init__(
        self,
        parts: Sequence[Part],
        reader: Reader,
        views: Sequence[ViewRecipe],
        *,
        seed: int,
        images: Images,
        loading: Loading,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.parts = tuple(parts)
        self.reader = reader
        self.views = tuple(views)
        self._seed, self._images = seed, images
        self._rank, self._ranks = rank, ranks
        self._threads, self._ahead = loading.threads, loading.ahead if loading.threads else 0
        self._on_device, self._pin = loading.render == "device", torch.cuda.is_available()

    def __len__(self) -> int:
        """Batches of a Lightning epoch: floor(N / global batch)."""
        return sum(len(p.units) for p in self.parts) // sum(p.share for p in self.parts)

    def advance(self, positions: Positions) -> Positions:
        """The positions after one global batch."""
        return tuple(p + part.share for p, part in zip(positions, self.parts, strict=True))

    def rows(self, positions: Positions) -> Rows:
        """What this rank reads of the global batch at `positions`, group by group."""
        tables = [self._rows_of(*pair) for pair in zip(self.parts, positions, strict=True)]
        return Rows.interleave(tables, self.parts[0].order.groups // self._ranks)

    def batches(self, positions: Positions) -> Iterator[StreamBatch]:
        """Batches from `positions` on, in order, without end."""
        begun: deque[_Begun] = deque()
        with worker_threads(self._threads) as submit:
            while True:
                while len(begun) <= self._ahead:
                    begun.append(self._begin(positions, submit))
                    positions = self.advance(positions)
                yield begun.popleft().finish()

    def _rows_of(self, part: Part, position: int) -> Rows:
        places = part.order.rows(position, part.share, self._rank, self._ranks)
        epoch, local = part.order.take(places)
        unit = part.first_unit + local
        first = part.units.first[local]
        shown = shown_images(
            part.units.first[local + 1] - first,
            views=len(self.views),
            images=self._images,
            seed=self._seed,
            epoch_R=epoch,
            unit_R=unit,
        )
        image = part.first_image + part.units.image[first + shown]
        return Rows(epoch, unit, part.units.patient[local], image)

    def _begin(self, positions: Positions, submit: Submit) -> _Begun:
        rows = self.rows(positions)
        shape = (len(self.views), len(rows), 1, *self.views[0].shape)
        slots = torch.empty(
            (0,) if self._on_device else shape, dtype=torch.uint8, pin_memory=self._pin
        )
        batch = StreamBatch(
            pixels=slots,
            unit=torch.from_numpy(rows.unit),
            patient=torch.from_numpy(rows.patient),
            image=torch.from_numpy(rows.image),
            after=self.advance(positions),
        )
        flipped = flips(self._seed, rows.epoch, rows.unit, self.flip)
        filling = _Filling(rows, slots.numpy(), flipped, self._report_rows(flipped))
        chunks = [slice(i, i + _CHUNK) for i in range(0, len(rows), _CHUNK)]
        work = [submit(self._fill, filling, chunk) for chunk in chunks]
        return _Begun(batch, work, filling.reports, pin=self._pin, on_device=self._on_device)

    def _report_rows(self, flipped: npt.NDArray[np.bool_]) -> ReportRows | None:
        if self.reading is None:
            return None
        limits = {name: words.limit for name, words in self.reading.words.items()}
        return ReportRows(flipped, limits)

    def _fill(self, filling: _Filling, chunk: slice) -> DrawnRows:
        """Decode, draw and, but for a device, render some rows; runs on a worker thread."""
        rows, flipped = filling.rows, filling.flipped[chunk]
        shown_VR = self._read(filling, chunk)
        drawn = DrawnRows([], [])
        for number, (view, shown) in enumerate(zip(self.views, shown_VR, strict=True)):
            params = view.draw(
                np.array([image.shape for image in shown]),
                seed=self._seed,
                epochs=rows.epoch[chunk],
                units=rows.unit[chunk],
                view=number,
            )
            if flipped.any():
                params = mirrored(params, flipped)
            if self._on_device:
                drawn.images.append(shown)
                drawn.params.append(params)
                continue
            for row, image in enumerate(shown):
                render_cpu(image, params, row, filling.slots[number, chunk.start + row, 0])
        return drawn

    def _read(self, filling: _Filling, chunk: slice) -> list[Pixels]:
        """For each view the images that some rows show; notes which they are, and the reports."""
        image_VR = filling.rows.image[:, chunk]
        if self.reading is not None:
            return self._read_reports(filling, chunk, self.reading)
        wanted = np.unique(image_VR)
        images = {int(i): self.reader.pixels_or_neighbour(int(i)) for i in wanted}
        shown_VR = [[images[int(i)][0] for i in view] for view in image_VR]
        image_VR[...] = [[images[int(i)][1] for i in view] for view in image_VR]
        return shown_VR

    def _read_reports(self, filling: _Filling, chunk: slice, reading: Reading) -> list[Pixels]:
        rows, shown_RV = filling.rows, []
        assert filling.reports is not None
        draws = drawn_sentence(self._seed, rows.epoch[chunk], rows.unit[chunk]).tolist()
        for row, draw in enumerate(draws, chunk.start):
            read = partial(reading, flipped=bool(filling.flipped[row]), draw=draw)
            wanted = rows.image[:, row].tolist()
            shown, rows.image[:, row], report = self.reader.row_or_neighbour(wanted, read)
            filling.reports.put(row, report)
            shown_RV.append(shown)
        return [list(view) for view in zip(*shown_RV, strict=True)]


@dataclass(frozen=True, slots=True)
class _Filling:
    """What worker threads read and fill in of one batch, each its own rows.

    slots: [V, R, 1, h, w], empty where a device renders. flipped: [R].
    """

    rows: Rows
    slots: npt.NDArray[np.uint8]
    flipped: npt.NDArray[np.bool_]
    reports: ReportRows | None


@dataclass(slots=True)
class _Begun:
    """A batch whose rows are being filled in."""

    batch: StreamBatch
    work: list[Future[DrawnRows]]
    reports: ReportRows | None
    pin: bool
    on_device: bool

    def finish(self) -> StreamBatch:
        chunks = [future.result() for future in self.work]
        if self.on_device:
            self.batch.pixels = assemble(chunks, pin=self.pin)
        if self.reports is not None:
            self.batch.report = self.reports.tensors(pin=self.pin)
        return self.batch
