"""What is known of an image from its row, before its pixels are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from lightning_rad.schema import Box
from lightning_rad.sharding.sources.columns import INVERTED, Columns
from lightning_rad.sharding.sources.evidence import Look
from lightning_rad.sharding.sources.findings import Findings
from lightning_rad.sharding.sources.rows import Row

VIEW_CODE: Final = "[A-Z0-9 _-]{1,16}"
"""Views that need no entry in a recipe's `views`: short codes, such as PA or LATERAL."""


RARE: Final = ("looks", "part")
"""Fields that repr, by which a plan is known again, leaves out where they say nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class TableImage:
    """One row: all that is known of an image but its pixels. where: the row, for rejections."""

    where: str
    file: str
    view: str
    labels: tuple[tuple[str, int | None], ...]
    boxes: tuple[Box, ...]
    looks: tuple[Look, ...]
    report: str
    report_files: tuple[str, ...]
    bits: int | None
    inverted: bool
    part: str = ""

    def __repr__(self) -> str:
        said = ((f.name, getattr(self, f.name)) for f in fields(self))
        return f"TableImage({', '.join(f'{n}={v!r}' for n, v in said if v or n not in RARE)})"

    @property
    def name(self) -> str:
        """What no other image may have: the file, or the file and which part of it."""
        return f"{self.file}\n{self.part}" if self.part else self.file


class RecordReader:
    """Makes images of rows, while one plan is made. seen: name of an image -> its row."""

    def __init__(
        self,
        columns: Columns,
        views: Mapping[str, str],
        findings: Findings | None,
        boxes: Mapping[str, Sequence[tuple[str, Box]]],
        looks: Mapping[str, Sequence[tuple[str, Look]]],
    ) -> None:
        self._views, self._findings = views, findings
        self._boxes, self._looks = boxes, looks
        self._of = {
            key: columns[key]
            for key in (
                "image",
                "part",
                "patient",
                "study",
                "view",
                "report",
                "report_file",
                "bits",
            )
        }
        self._photometric = columns["photometric"]
        self._said = sorted(findings.needed) if findings else []
        self._read: dict[tuple[str, ...], tuple[tuple[str, int | None], ...]] = {}
        self.seen: dict[str, str] = {}

    def image(self, where: str, row: Row) -> tuple[str, TableImage]:
        """Patient and image of a row. Raises ValueError with the reason to refuse it."""
        patient, file = (self._of[key][0].whole(row) for key in ("patient", "image"))
        for key, name in (("patient", patient), ("image", file)):
            if not name:
                raise ValueError(f"row without {key}")
        bits = self._one("bits", row).removesuffix(".0")
        if bits and not (bits.isdigit() and 1 <= int(bits) <= 16):
            column = self._of["bits"][0].text
            raise ValueError(f"bits out of range: in column '{column}', accepted are 1 to 16")
        image = TableImage(
            where=where,
            file=file,
            view=self._view(row),
            labels=self._labels(row),
            boxes=tuple(box for _, box in self._boxes.get(file, ())),
            looks=tuple(look for _, look in self._looks.get(file, ())),
            report=self._one("report", row),
            report_files=tuple(filter(None, (p.whole(row) for p in self._of["report_file"]))),
            bits=int(bits) if bits else None,
            inverted=any(p.fill(row) == INVERTED for p in self._photometric),
            part=self._one("part", row),
        )
        if image.name in self.seen:
            raise ValueError(f"duplicate key: the same image as {self.seen[image.name]}")
        return patient, image

    def study(self, row: Row, image: TableImage) -> str:
        """What tells a patient's studies apart; the image itself where nothing else does."""
        cells = [pattern.fill(row) for pattern in self._of["study"]]
        return "\n".join(cells) if any(cells) else "image " + image.name

    def _labels(self, row: Row) -> tuple[tuple[str, int | None], ...]:
        """Read once for all rows with the same cells, and held once. Raises ValueError."""
        if self._findings is None:
            return ()
        cells = tuple(row[column] for column in self._said)
        if cells not in self._read:
            self._read[cells] = tuple(self._findings.read(row).items())
        return self._read[cells]

    def _one(self, key: str, row: Row) -> str:
        return self._of[key][0].fill(row) if self._of[key] else ""

    def _view(self, row: Row) -> str:
        """The view of a row, "" where unknown. Raises ValueError."""
        word = self._one("view", row)
        if word in self._views:
            return self._views[word]
        if word and not re.fullmatch(VIEW_CODE, word):
            where = f"in column '{self._of['view'][0].text}'"
            raise ValueError(f"unknown view: {where}, neither a short code nor in 'views'")
        return word
