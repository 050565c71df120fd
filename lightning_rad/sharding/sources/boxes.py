"""Which columns say what of a box, and what several readers' boxes become."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_rad.schema import Box
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.sources.evidence import number
from lightning_rad.sharding.sources.findings import texts
from lightning_rad.sharding.sources.patterns import Pattern
from lightning_rad.sharding.sources.rows import Row
from lightning_rad.sharding.sources.runs import Runs
from lightning_rad.sharding.sources.table_files import tables_of

AT = "source.init_args.boxes"


@dataclass(frozen=True, slots=True)
class BoxTable:
    """A table, or several alike, with one row a box, in pixels of the image file.

    image: column or pattern that gives what `columns.image` gives. label: column of the finding;
    labels: word of the table -> finding, for words that are another name of one; others are taken
    as they are; finding: instead of `label`, what all boxes are of. (x, y) is the upper left
    corner, and (w, h) the size or, where they are given, (right, bottom) the lower right corner;
    runs: instead of these, a mask whose bounding box it is, see `runs.Runs`. none: column -> cells
    of rows that say that there is no box. fuse: boxes of one image and label whose overlap
    (intersection over union) is at least this become one, the mean of theirs: for tables with the
    boxes of several readers.
    """

    csv: str | Mapping[str, Any] | Sequence[Any]
    image: str = "image"
    label: str = "label"
    x: str = "x"
    y: str = "y"
    w: str = "w"
    h: str = "h"
    right: str = ""
    bottom: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    finding: str = ""
    runs: Any = None
    none: Mapping[str, Collection[Any]] = field(default_factory=dict)
    fuse: float | None = None

    def __post_init__(self) -> None:
        tables_of(self.csv, f"{AT}.csv")
        if bool(self.right) != bool(self.bottom):
            raise ValueError("'right' and 'bottom' go together")
        if self.runs is not None:
            object.__setattr__(self, "runs", strictly(Runs, self.runs, f"{AT}.runs"))
        if self.fuse is not None and not 0 < float(self.fuse) <= 1:
            raise ValueError(f"'fuse' is {self.fuse!r}; accepted are an overlap above 0, up to 1")

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        columns = {*Pattern(self.image).columns, *self.none}
        if not self.finding:
            columns.add(self.label)
        return columns | ({self.runs.column} if self.runs else set(self._corners))

    def read(self, row: Row) -> Box | None:
        """The box of a row, None where it says that there is none. Raises ValueError."""
        if any(row[column] in texts(cells) for column, cells in self.none.items()):
            return None
        if self.runs is not None:
            x, y, w, h = self.runs.bounds(row)
        else:
            x, y, w, h = (number(row, column, "box") for column in self._corners)
            if self.right:
                w, h = w - x, h - y
        if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
            raise ValueError("degenerate box: not finite, or without an area")
        label = self.finding or row[self.label]
        if not label:
            raise ValueError("damaged box: no label")
        return Box(self.labels.get(label, label), x, y, w, h)

    @property
    def _corners(self) -> tuple[str, str, str, str]:
        far = (self.right, self.bottom) if self.right else (self.w, self.h)
        return (self.x, self.y, *far)


def fused(boxes: Sequence[tuple[str, Box]], overlap: float) -> list[tuple[str, Box]]:
    """Boxes of one label that overlap so much as their mean, at the place of the first.

    In the order of the table, each joins the group whose mean it overlaps most, if that is enough.
    """
    groups: list[list[tuple[str, Box]]] = []
    means: list[Box] = []
    for where, box in boxes:
        shares = [iou(box, mean) if mean.label == box.label else 0.0 for mean in means]
        best = max(range(len(shares)), key=shares.__getitem__, default=-1)
        if best >= 0 and shares[best] >= overlap:
            groups[best].append((where, box))
            means[best] = _mean([b for _, b in groups[best]])
        else:
            groups.append([(where, box)])
            means.append(box)
    return [(group[0][0], mean) for group, mean in zip(groups, means, strict=True)]


def iou(one: Box, other: Box) -> float:
    """Intersection over union."""
    across = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    down = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    common = max(across, 0.0) * max(down, 0.0)
    return common / (one.w * one.h + other.w * other.h - common)


def _mean(boxes: Sequence[Box]) -> Box:
    x, y, w, h = (sum(getattr(b, side) for b in boxes) / len(boxes) for side in "xywh")
    return Box(boxes[0].label, x, y, w, h)
