"""What crosses a border: a study as a shard holds it, a batch as an objective gets it.

Shape letters used everywhere: B units of a batch, V views, N rows, M keys, D features,
C findings, T tokens, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

SPLITS: Final = ("train", "val", "test")
"""The splits a patient can fall into; every shard file holds one of them."""

IMAGE_SUFFIXES: Final = ("jpg", "jpeg", "png", "pgm")
"""Suffixes of members that readers decode as pixels; members with others are ignored."""


@dataclass(frozen=True, slots=True)
class Box:
    """A finding's rectangle, in pixels of the stored image, (x, y) its upper left corner."""

    label: str
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Fixation:
    """A resting point of a reader's gaze: fractions of width and height, duration in seconds."""

    x: float
    y: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One image of a study.

    pixels: [H, W] uint8, or uint16 of which the low `bits` are used; bright is dense (bone white).
    view: "PA", "AP", "LATERAL" or another word of the source; "" where unknown.
    labels: finding -> 1 present, 0 absent, None unknown.
    """

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    view: str = ""
    bits: int = 8
    labels: Mapping[str, int | None] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    fixations: tuple[Fixation, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """One examination of one patient: the unit that becomes one sample of a shard.

    patient, study: 16 hexadecimal digits, salted hashes of the source's identifiers.
    split: one of SPLITS. report: free text or None.
    """

    patient: str
    study: str
    split: str
    source: str
    images: tuple[Radiograph, ...]
    report: str | None = None


PADDING: Final = -1
"""What stands behind the end of a shorter text in a tensor of tokens, whatever tokenisers take."""


@dataclass(slots=True)
class Reports:
    """What the reports of B units say, in numbers.

    hash: [B] int64, of the text as it was read: equal for equal texts, never 0. flipped: [B] bool,
    the study is mirrored: sides have changed places in its text and in all its views. tokens: by
    the name of their tokeniser, [B, T] int64, PADDING where a row has ended; T may differ by name.
    """

    hash: Tensor
    flipped: Tensor
    tokens: dict[str, Tensor]

    def rows(self, which: slice) -> Reports:
        """Some of the units; the tensors are views."""
        tokens = {name: tokens[which] for name, tokens in self.tokens.items()}
        return Reports(self.hash[which], self.flipped[which], tokens)


@dataclass(slots=True)
class Findings:
    """What is known of the findings of pictures; leading dimensions [V, B], or [B].

    labels: [..., C] float32, 1 present, 0 absent, NaN unknown. boxes: [..., K, 4] float32, (left,
    top, right, bottom) in pixels of the picture as it is shown, half open; NaN behind the last; K
    is the batch's own and may be 0. finding: [..., K] int64, the column of each box, PADDING behind
    the last.
    """

    labels: Tensor
    boxes: Tensor
    finding: Tensor

    def at(self, which: int | slice | tuple[slice, ...]) -> Findings:
        """Some of the pictures; the tensors are views."""
        return Findings(self.labels[which], self.boxes[which], self.finding[which])


@dataclass(slots=True)
class Gaze:
    """Where readers looked at pictures; leading dimensions [V, B], or [B].

    map: [..., S, S] float32 density over the picture as it is shown, of sum 1, or 0 everywhere if
    nobody looked. points: [..., K, 2] float32, (x, y) of the fixations inside, in fractions of the
    picture's width and height; NaN behind the last.
    """

    map: Tensor
    points: Tensor

    def at(self, which: int | slice | tuple[slice, ...]) -> Gaze:
        """Some of the pictures; the tensors are views."""
        return Gaze(self.map[which], self.points[which])


@dataclass(slots=True)
class ViewBatch:
    """What an objective gets: V views of each of B units, rank-local.

    views: [V, B, 1, H, W] float, normalised. unit: [B] int64, index of the unit in the stream.
    patient: [B] int64, hash of the patient, 0 where unknown. image: [V, B] int64, index of the
    image that each view shows. Where they are read: report, what the units' reports say; findings
    and gaze, [V, B, ...], of each view; greys: [V, B, 1, H, W] uint8, the views before they were
    normalised, with findings.
    """

    views: Tensor
    unit: Tensor
    patient: Tensor
    image: Tensor
    report: Reports | None = None
    findings: Findings | None = None
    gaze: Gaze | None = None
    greys: Tensor | None = None

    def rows(self, which: slice) -> ViewBatch:
        """Some of the units, all their views; the tensors are views."""
        views = (slice(None), which)
        return replace(
            self,
            views=self.views[views],
            unit=self.unit[which],
            patient=self.patient[which],
            image=self.image[views],
            report=None if self.report is None else self.report.rows(which),
            findings=None if self.findings is None else self.findings.at(views),
            gaze=None if self.gaze is None else self.gaze.at(views),
            greys=None if self.greys is None else self.greys[views],
        )


@dataclass(slots=True)
class LabelledBatch:
    """What evaluation gets: one unaugmented image a row.

    images: [B, 1, H, W] float, normalised. labels: [B, C] float, NaN where unknown.
    patient, image: [B] int64. Rows that pad a rank's share repeat an image index; the metric
    drops repeats by that index. findings, gaze: [B, ...] of each image, where they are read.
    """

    images: Tensor
    labels: Tensor
    patient: Tensor
    image: Tensor
    findings: Findings | None = None
    gaze: Gaze | None = None


@dataclass(slots=True)
class StudyBatch:
    """What the evaluation of reports gets: one study with a report a row.

    views: whole-image views, not mirrored, of which view v shows image v modulo the study's number
    of images, and the study's report; `unit` is the study's row in the index. labels: [B, C] float:
    1 where any image of the study says 1, else 0 where any says 0, else NaN. Rows that pad a
    rank's share repeat a study and are dropped by `unit`.
    """

    views: ViewBatch
    labels: Tensor
