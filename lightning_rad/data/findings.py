"""Findings of a batch's images: labels, and boxes as the views show them.

Shape letters: V views, R rows, C findings, K boxes of an image.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lightning_rad.data.reader import Reader
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.placement import boxes_seen
from lightning_rad.manifest import Index
from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.randomness import hash64
from lightning_rad.schema import PADDING, Findings

log = logging.getLogger(__name__)

_SAYING = threading.Lock()

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Known:
    """Of one image: labels [C], NaN where unknown; boxes [K, 4] of the picture; finding [K]."""

    labels: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float64]
    finding: npt.NDArray[np.int64]


class FindingReader:
    """What the records say of images, by their number in the reader; safe to use from many threads.

    hides: whether the labels and boxes of some patients are kept back, as the reading asks: for
    training. An image whose record cannot be understood counts as without findings, which the
    reader counts and logs (`Reader.say_without`). What boxes are labelled with that is none of the
    findings is logged once a word; `strange`: those that have been, shared with other readers.
    """

    def __init__(
        self,
        reader: Reader,
        reading: FindingReading,
        *,
        hides: bool,
        strange: set[str] | None = None,
    ) -> None:
        self._reader, self._reading = reader, reading
        self._strange = set[str]() if strange is None else strange
        shares = (reading.labelled, reading.boxed) if hides else (1.0, 1.0)
        self._open = {
            source: [
                drawn(purpose, source.index, share)
                for purpose, share in zip(("labelled", "boxed"), shares, strict=True)
            ]
            for source in reader.sources
        }

    @property
    def columns(self) -> int:
        """C."""
        return len(self._reading.names)

    def of(self, image: int) -> Known:
        """Labels and boxes of an image."""
        source, local = self._reader.place(image)
        labelled, boxed = self._open[source]
        study = int(source.index.images[local]["study"])
        try:
            entry = source.entry(local)
            labels = _labels(entry.get("labels"), self._reading.names)
            boxes, finding = self._boxes(entry.get("boxes"))
        except ValueError as error:
            damage = error if isinstance(error, BadSampleError) else _named(source, study, error)
            self._reader.say_without(image, "findings", damage)
            return _nothing(self.columns)
        unknown = _nothing(self.columns)
        return Known(
            labels if labelled[study] else unknown.labels,
            boxes if boxed[study] else unknown.boxes,
            finding if boxed[study] else unknown.finding,
        )

    def _boxes(self, said: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Raises ValueError for what is not a list of boxes."""
        if not isinstance(said, list | None):
            raise ValueError(f"malformed boxes {said!r}")
        boxes, finding = [], []
        for box in said or ():
            word, corners = _corners(box)
            column = self._reading.column(word)
            if column is None:
                self._say_strange(word)
                continue
            boxes.append(corners)
            finding.append(column)
        return np.array(boxes, np.float64).reshape(-1, 4), np.array(finding, np.int64)

    def _say_strange(self, word: str) -> None:
        if word in self._strange:
            return
        with _SAYING:
            new = word not in self._strange
            self._strange.add(word)
        if new:
            log.warning(
                "boxes labelled '%s' are ignored: it is none of %s; findings.reading.aliases can "
                "say which of them it stands for",
                word,
                list(self._reading.names),
            )


class FindingRows:
    """Collects what views of R rows show of findings, put in from any thread, each once."""

    def __init__(self, views: int, rows: int, findings: int) -> None:
        self._labels = np.full((views, rows, findings), np.nan, np.float32)
        self._boxes = [[_nothing(0).boxes] * rows for _ in range(views)]
        self._finding = [[_nothing(0).finding] * rows for _ in range(views)]

    def put(self, row: int, view: int, known: Known, params: ViewParams, at: int) -> None:
        """Keep what is known of the image that a view shows, drawn as row `at` of the parameters.

        A box of which the view shows too little (see `boxes_seen`) is left out.
        """
        self._labels[view, row] = known.labels
        if len(known.boxes):
            boxes = boxes_seen(known.boxes, params, at)
            seen = np.isfinite(boxes).all(1)
            self._boxes[view][row], self._finding[view][row] = boxes[seen], known.finding[seen]

    def tensors(self, *, pin: bool = False) -> Findings:
        """All rows, [V, R, ...]; as many places for boxes as the row with the most has."""
        views, rows, _ = self._labels.shape
        most = max((len(boxes) for view in self._boxes for boxes in view), default=0)
        boxes = np.full((views, rows, most, 4), np.nan, np.float32)
        finding = np.full((views, rows, most), PADDING, np.int64)
        for view, row in np.ndindex(views, rows):
            count = len(self._boxes[view][row])
            boxes[view, row, :count] = self._boxes[view][row]
            finding[view, row, :count] = self._finding[view][row]
        tensors = [torch.from_numpy(array) for array in (self._labels, boxes, finding)]
        return Findings(*(tensor.pin_memory() if pin else tensor for tensor in tensors))


def drawn(purpose: str, index: Index, share: float) -> Bools:
    """[S] whether a study's patient is among that share of all; a study of no known patient is one.

    By the patient's hash alone: the same in every run, on every rank and in any set of shards.
    """
    if share >= 1:
        return np.ones(len(index.studies), np.bool_)
    bits_S = hash64(purpose, 0, index.studies["patient"])
    for study in np.flatnonzero(index.studies["patient"] == 0):
        bits_S[study] = hash64(purpose, 0, index.studies["key"][study].decode())
    return np.asarray((bits_S >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share)


def _labels(said: Any, names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Raises ValueError for what is no mapping, and for a value that is no label."""
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise ValueError(f"malformed labels {said!r}")
    values = [said.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if value not in (0, 1, None):
            raise ValueError(f"label {name} = {value!r}, accepted are 0, 1 and null")
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _corners(box: Any) -> tuple[str, tuple[float, float, float, float]]:
    """Label and (left, top, right, bottom) of a box. Raises ValueError for what is none."""
    try:
        x, y, w, h = (float(box[side]) for side in "xywh")
        word = str(box["label"])
    except (TypeError, KeyError, ValueError, OverflowError):
        raise ValueError(f"malformed box {box!r}") from None
    if not np.isfinite([x, y, w, h]).all():
        raise ValueError(f"malformed box {box!r}")
    return word, (x, y, x + w, y + h)


def _nothing(findings: int) -> Known:
    unknown = np.full(findings, np.nan, np.float32)
    return Known(unknown, np.empty((0, 4)), np.empty(0, np.int64))


def _named(source: ShardSource, study: int, error: ValueError) -> BadSampleError:
    return BadSampleError(f"{source.name(study)}: {error}")
