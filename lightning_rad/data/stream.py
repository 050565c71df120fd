"""The stream: composes order, reader and views into rank-local batches, without end.

Its whole state is one position a set, counted in units of that set. Everything a batch holds is a
pure function of (seed, shards, groups, window, separation, images, flip, global batch, position)
and, where more than pixels is read, of how: ranks take slices of one global batch, threads only
decide who computes which rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from lightning_rad.data.ahead import ReadAhead
from lightning_rad.data.batch import Rows, StreamBatch, Submit, worker_threads
from lightning_rad.data.evidence import Evidence
from lightning_rad.data.filling import Begun, Filler
from lightning_rad.data.order import Order
from lightning_rad.data.reader import Reader
from lightning_rad.data.report_rows import flips
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.data.settings import Loading
from lightning_rad.data.units import Images, Units, shown_images
from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.recipe import ViewRecipe
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
    of each unit is read, of parts whose units are images or studies with a report; evidence, by
    which findings and gaze of each image are; flip, the probability that a unit is mirrored, all
    its views and what is read of it together; expecting, one a set, that are told what comes.
    """

    reading: Reading | None = None
    evidence: Evidence = Evidence()
    flip: float = 0.0
    expecting: Sequence[ReadAhead] = ()

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
        begun: deque[Begun] = deque()
        focused = any(isinstance(view, FocusRecipe) for view in self.views)
        filler = Filler(
            self.reader,
            self.views,
            self._seed,
            self._on_device,
            self.reading,
            self.evidence,
            SaliencyMaps(self.reader) if focused else None,
        )
        with worker_threads(self._threads) as submit:
            while True:
                while len(begun) <= self._ahead:
                    for each, position in zip(self.expecting, positions, strict=False):
                        each.before(position)
                    begun.append(self._begin(filler, positions, submit))
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

    def _begin(self, filler: Filler, positions: Positions, submit: Submit) -> Begun:
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
        filling = filler.begin(rows, slots.numpy(), flipped)
        chunks = [slice(i, i + _CHUNK) for i in range(0, len(rows), _CHUNK)]
        work = [submit(filler.fill, filling, chunk) for chunk in chunks]
        return Begun(batch, work, filling, pin=self._pin, on_device=self._on_device)
