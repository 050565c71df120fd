"""What worker threads do for a batch: read, draw, render, each its own rows.

Shape letters: V views, R rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from lightning_rad.data.batch import Rows, StreamBatch
from lightning_rad.data.evidence import Evidence, EvidenceRows
from lightning_rad.data.reader import Pixels, Reader
from lightning_rad.data.report_rows import ReportRows, drawn_sentence
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.data.unrendered import DrawnRows, assemble
from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.mirror import mirrored
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.modalities.gaze import Map, Saliency
from lightning_rad.modalities.reading import Reading


@dataclass(frozen=True, slots=True)
class Filling:
    """What worker threads read and fill in of one batch, each its own rows.

    slots: [V, R, 1, h, w], empty where a device renders. flipped: [R]. focus: [V, R], what a focus
    view had to make do with (`ViewParams.exhausted`), 0 of other views; empty where none is one.
    """

    rows: Rows
    slots: npt.NDArray[np.uint8]
    flipped: npt.NDArray[np.bool_]
    focus: npt.NDArray[np.uint8]
    reports: ReportRows | None
    evidence: EvidenceRows | None


@dataclass(slots=True)
class Begun:
    """A batch whose rows are being filled in."""

    batch: StreamBatch
    work: list[Future[DrawnRows]]
    filling: Filling
    pin: bool
    on_device: bool

    def finish(self) -> StreamBatch:
        """The batch, once its rows are there."""
        chunks = [future.result() for future in self.work]
        batch, filling = self.batch, self.filling
        if self.on_device:
            batch.pixels = assemble(chunks, pin=self.pin)
        if filling.reports is not None:
            batch.report = filling.reports.tensors(pin=self.pin)
        if filling.evidence is not None:
            batch.findings, batch.gaze = filling.evidence.tensors(pin=self.pin)
        if filling.focus.size:
            batch.focus = torch.from_numpy(filling.focus)
        return batch


@dataclass(frozen=True, slots=True)
class Filler:
    """How the rows of a stream's batches are read, drawn and, but for a device, rendered."""

    reader: Reader
    views: Sequence[ViewRecipe]
    seed: int
    on_device: bool
    reading: Reading | None
    evidence: Evidence
    maps: SaliencyMaps | None  # where a view is a focus view

    def begin(
        self, rows: Rows, slots: npt.NDArray[np.uint8], flipped: npt.NDArray[np.bool_]
    ) -> Filling:
        """Room for what the rows of one batch need."""
        shape = rows.image.shape
        words = {} if self.reading is None else self.reading.words
        limits = {name: each.limit for name, each in words.items()}
        return Filling(
            rows,
            slots,
            flipped,
            focus=np.zeros(shape if self.maps is not None else 0, np.uint8),
            reports=None if self.reading is None else ReportRows(flipped, limits),
            evidence=self.evidence.rows(*shape),
        )

    def fill(self, filling: Filling, chunk: slice) -> DrawnRows:
        """Decode, draw and, but for a device, render some rows; runs on a worker thread."""
        flipped = filling.flipped[chunk]
        shown_VR = self._read(filling, chunk)
        maps_VR = self._maps_of(filling.rows.image[:, chunk])
        drawn = DrawnRows([], [])
        every = []
        for number, shown in enumerate(shown_VR):
            params = self._draw(filling, chunk, number, shown, maps_VR[number])
            if flipped.any():
                params = mirrored(params, flipped)
            every.append(params)
            if self.on_device:
                drawn.images.append(shown)
                drawn.params.append(params)
                continue
            for row, image in enumerate(shown):
                render_cpu(image, params, row, filling.slots[number, chunk.start + row, 0])
        if filling.evidence is not None:
            filling.evidence.put(filling.rows.image[:, chunk], every, chunk.start)
        return drawn

    def _maps_of(self, image_VR: npt.NDArray[np.int64]) -> list[list[Map | None]]:
        """For each focus view the maps of the images shown, each made once; [] for other views.

        image_VR: those shown, which may be neighbours of those wanted.
        """
        asked = [v.saliency if isinstance(v, FocusRecipe) else None for v in self.views]
        made: dict[Saliency, dict[int, Map | None]] = {}
        for saliency in filter(None, asked):
            assert self.maps is not None
            if saliency not in made:
                alike = [s == saliency for s in asked]
                images = np.unique(image_VR[alike]).tolist()
                made[saliency] = dict(zip(images, self.maps.of(images, saliency), strict=True))
        return [
            [] if saliency is None else [made[saliency][image] for image in images]
            for saliency, images in zip(asked, image_VR.tolist(), strict=True)
        ]

    def _draw(
        self,
        filling: Filling,
        chunk: slice,
        number: int,
        shown: Pixels,
        maps: Sequence[Map | None],
    ) -> ViewParams:
        rows, sizes = filling.rows, np.array([image.shape for image in shown])
        epochs, units, view = rows.epoch[chunk], rows.unit[chunk], self.views[number]
        if isinstance(view, FocusRecipe):
            params = view.draw_focused(
                sizes, maps, seed=self.seed, epochs=epochs, units=units, view=number
            )
            if params.exhausted is not None:
                filling.focus[number, chunk] = params.exhausted
            return params
        return view.draw(sizes, seed=self.seed, epochs=epochs, units=units, view=number)

    def _read(self, filling: Filling, chunk: slice) -> list[Pixels]:
        """For each view the images that some rows show; notes which they are, and the reports."""
        image_VR = filling.rows.image[:, chunk]
        if self.reading is not None:
            return self._read_reports(filling, chunk, self.reading)
        wanted = np.unique(image_VR)
        images = {int(i): self.reader.pixels_or_neighbour(int(i)) for i in wanted}
        shown_VR = [[images[int(i)][0] for i in view] for view in image_VR]
        image_VR[...] = [[images[int(i)][1] for i in view] for view in image_VR]
        return shown_VR

    def _read_reports(self, filling: Filling, chunk: slice, reading: Reading) -> list[Pixels]:
        rows, shown_RV = filling.rows, []
        assert filling.reports is not None
        draws = drawn_sentence(self.seed, rows.epoch[chunk], rows.unit[chunk]).tolist()
        for row, draw in enumerate(draws, chunk.start):
            read = partial(reading, flipped=bool(filling.flipped[row]), draw=draw)
            wanted = rows.image[:, row].tolist()
            shown, rows.image[:, row], report = self.reader.row_or_neighbour(wanted, read)
            filling.reports.put(row, report)
            shown_RV.append(shown)
        return [list(view) for view in zip(*shown_RV, strict=True)]
