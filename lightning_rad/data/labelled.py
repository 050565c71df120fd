"""Labelled images for evaluation: each once, in order, shared over ranks in equal batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lightning_rad.data.ahead import expect_next
from lightning_rad.data.batch import Submit
from lightning_rad.data.dealing import chosen, in_batches, share_of
from lightning_rad.data.evidence import Evidence, EvidenceRows
from lightning_rad.data.kept import kept
from lightning_rad.data.reader import Reader
from lightning_rad.data.settings import Evaluation
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.schema import LabelledBatch


class LabelledImages:
    """Batches of the labelled images of one index, for one rank.

    Ranks take equal numbers of equal batches: the images, in index order, are padded by repeating
    the first ones, and dealt out in contiguous shares. A repeat is known by its image number. An
    unreadable sample is an error here, for a metric over what happens to be readable is no metric.

    most: at most so many images, chosen by hash, the same on every call. Images come as uint8;
    the data module normalises them on the device. evidence: how findings and gaze of the whole
    images are read, to be set before batches are asked for.
    """

    evidence: Evidence = Evidence()

    def __init__(
        self,
        source: ShardSource,
        labels: Sequence[str],
        settings: Evaluation,
        *,
        rank: int = 0,
        ranks: int = 1,
        most: int | None = None,
        threads: int = 2,
    ) -> None:
        self._source, self._index = source, source.index
        self.reader, self._view = Reader([source]), settings.view
        self._labels = tuple(labels)
        self._batch, self._threads = settings.batch, threads
        images = chosen("labelled", np.arange(len(source.index.images)), most)
        self._images = share_of(images, rank, ranks)
        self._shards = np.unique(source.index.shard_of_study[self._study_of(self._images)])

    def __len__(self) -> int:
        return math.ceil(len(self._images) / self._batch)

    def __iter__(self) -> Iterator[LabelledBatch]:
        for begun in in_batches(self._images, self._batch, self._begin, threads=self._threads):
            yield begun.finish()

    def _study_of(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._index.images["study"][images])

    def _begin(self, images: np.ndarray, submit: Submit) -> tuple[_Begun, list[Future[None]]]:
        studies = self._study_of(images)
        expect_next(self._source, self._shards, int(self._index.shard_of_study[studies[0]]))
        batch = LabelledBatch(
            images=torch.empty((len(images), 1, *self._view.shape), dtype=torch.uint8),
            labels=torch.empty((len(images), len(self._labels))),
            patient=torch.from_numpy(self._index.studies["patient"][studies].view(np.int64)),
            image=torch.from_numpy(images.astype(np.int64)),
        )
        begun = _Begun(batch, self.evidence.rows(1, len(images)))
        return begun, [submit(self._fill, begun, row) for row in range(len(images))]

    def _fill(self, begun: _Begun, row: int) -> None:
        """Decode, render and label one image; runs on a worker thread."""
        batch = begun.batch
        image = int(batch.image[row])
        pixels = self.reader.pixels(image)
        zero = np.zeros(1, np.int64)
        sizes = np.array([pixels.shape])
        drawn = self._view.draw(sizes, seed=0, epochs=zero, units=zero, view=0)
        render_cpu(pixels, drawn, 0, batch.images[row, 0].numpy())
        known = labels_of(self._source, image)
        values = [known.get(name) for name in self._labels]
        # through NumPy, for a tensor made in inference mode takes no assignment on another thread
        batch.labels.numpy()[row] = [np.nan if value is None else value for value in values]
        if begun.evidence is not None:
            begun.evidence.put(np.array([[image]]), [drawn], row)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that is being filled in, and its evidence where it is read."""

    batch: LabelledBatch
    evidence: EvidenceRows | None

    def finish(self) -> LabelledBatch:
        if self.evidence is None:
            return self.batch
        findings, gaze = self.evidence.tensors()
        return replace(
            self.batch,
            findings=kept(findings and findings.at(0)),
            gaze=kept(gaze and gaze.at(0)),
        )


def labels_of(source: ShardSource, image: int) -> dict[str, int | None]:
    """The labels that the study's record gives to an image. Raises BadSampleError."""
    known: Any = source.entry(image).get("labels") or {}
    if not isinstance(known, dict):
        study = int(source.index.images[image]["study"])
        raise BadSampleError(f"{source.name(study)}: malformed labels {known!r}")
    return known
