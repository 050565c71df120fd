"""Any CSV with a folder of images: one row an image, columns named by the recipe.

Rows, boxes and fixations are refused by their line in the table, never by identifier or file name:
the list of what was refused lies beside the shards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from glob import glob
from pathlib import Path
from typing import Any, Final

import numpy as np

from lightning_rad.modalities.radiograph import UnreadableImageError, read_image
from lightning_rad.modalities.report import NOTE_END, distinct_texts
from lightning_rad.schema import Box, Radiograph
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.recipe import expand
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources import evidence
from lightning_rad.sharding.sources.columns import Columns, OfficialSplits, findings_from
from lightning_rad.sharding.sources.evidence import Look, Part_co
from lightning_rad.sharding.sources.rows import Row, read_rows

VIEW_CODE: Final = "[A-Z0-9 _-]{1,16}"
"""Views that need no entry in a recipe's `views`: short codes, such as PA or LATERAL."""


@dataclass(frozen=True, slots=True)
class TableImage:
    """One row: all that is known of an image but its pixels. where: the row, for rejections."""

    where: str
    file: str
    view: str
    labels: tuple[tuple[str, int | None], ...]
    boxes: tuple[Box, ...]
    report: str
    bits: int | None


@dataclass(frozen=True, slots=True)
class SeenImage(TableImage):
    """One that somebody looked at.

    A class of its own: the plan of a table without gaze is what it was before there was any.
    """

    looks: tuple[Look, ...]


class TableSource:
    """Reads a CSV table and the image files it names.

    Args:
        root: Folder of the raw data.
        csv: The table, relative to `root`.
        columns: Keys image, patient and, where there are such, study, view, report: the names of
            the columns. Rows of a patient with the same study (one column or a list of them) are
            one study; a row whose study is blank, and every row without that key, is its own.
        folders: Where image files lie, relative to `root`; may hold wildcards.
        views: Word of the table -> word of the shard. Short codes (at most 16 of A-Z, 0-9, space,
            _ and -) need no entry and an empty cell is "" (unknown); any other word refuses the
            row, since it would be copied into the shard and may be anything.
        labels: How findings are read: see `columns.FindingList` and `columns.FindingColumns`.
        boxes: The table of boxes: see `evidence.BoxTable`.
        gaze: The table of recorded fixations: see `evidence.GazeTable`.
        splits: Official splits: see `columns.OfficialSplits`.
    """

    version = 1
    """Raised with each change to what a table's rows become: 1, notes of a study are kept apart."""

    def __init__(
        self,
        root: Path,
        *,
        csv: str,
        columns: Mapping[str, Any],
        folders: Sequence[str] = (".",),
        views: Mapping[str, str] | None = None,
        labels: Mapping[str, Any] | None = None,
        boxes: Mapping[str, Any] | None = None,
        gaze: Mapping[str, Any] | None = None,
        splits: Mapping[str, Any] | None = None,
    ) -> None:
        at = "source.init_args."
        self.root = root
        self.table = root / expand(csv)
        self.columns = strictly(Columns, columns, at + "columns")
        self.folders = tuple(folders)
        self._folders: dict[str, list[Path]] = {}
        self.views = dict(views or {})
        self.findings = findings_from(labels)
        self.boxes = strictly(evidence.BoxTable, boxes, at + "boxes") if boxes else None
        self.gaze = strictly(evidence.GazeTable, gaze, at + "gaze") if gaze else None
        self.splits = strictly(OfficialSplits, splits, at + "splits") if splits else None

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """The rows grouped to studies, in the order of the table. Raises ValueError."""
        rejected: list[Rejection] = []
        boxes = self._parts(self.boxes, rejected)
        looks = self._parts(self.gaze, rejected)
        official = self.splits.table(self.root) if self.splits else {}
        studies: dict[tuple[str, str], list[TableImage]] = defaultdict(list)
        seen: dict[str, str] = {}
        splits: dict[str, set[str]] = defaultdict(set)
        for where, row in self._read(self.table, self._needed(), rejected):
            try:
                image = self._image(where, row)
                if image.file in seen:
                    raise ValueError(f"duplicate key: the same image as {seen[image.file]}")
                split = self.splits.look_up(official, row, self.columns) if self.splits else None
            except ValueError as error:
                rejected.append(Rejection(where, str(error)))
                continue
            seen[image.file] = where
            patient = row[self.columns.patient]
            splits[patient] |= {split} if split else set()
            image = replace(image, boxes=tuple(box for _, box in boxes.pop(image.file, ())))
            image = _seen(image, tuple(look for _, look in looks.pop(image.file, ())))
            studies[patient, self._study(row)].append(image)
        rejected += [*evidence.orphans("box", boxes), *evidence.orphans("gaze", looks)]
        return list(_planned(studies, splits, rejected)), rejected

    def read(self, study: PlannedStudy) -> ReadStudy:
        """The images of a study; its report is what its rows say, each text once.

        Texts that differ in case, spaces or marks of de-identification alone are one. Several are
        kept apart by NOTE_END, so that each is read as a report of its own.
        """
        images: list[Radiograph] = []
        rejected: list[Rejection] = []
        for image in study.images:
            try:
                images.append(self._radiograph(image))
            except UnreadableImageError as error:
                rejected.append(Rejection(image.where, str(error)))
        reports = distinct_texts(image.report for image in study.images if image.report)
        return ReadStudy(tuple(images), NOTE_END.join(reports) or None, tuple(rejected))

    def _radiograph(self, image: TableImage) -> Radiograph:
        candidates = (place / image.file for f in self.folders for place in self._matches(f))
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise UnreadableImageError("missing file")
        pixels = read_image(path)
        bits = 8 if pixels.dtype == np.uint8 else image.bits or 16
        looks = image.looks if isinstance(image, SeenImage) else ()
        fixations = tuple(look.on(pixels.shape[1], pixels.shape[0]) for look in looks)
        return Radiograph(pixels, image.view, bits, dict(image.labels), image.boxes, fixations)

    def _matches(self, folder: str) -> list[Path]:
        """The folders that a pattern stands for, found once."""
        if folder not in self._folders:
            names = sorted(glob(folder, root_dir=self.root))
            self._folders[folder] = [self.root / name for name in names]
        return self._folders[folder]

    def _read(
        self, table: Path, needed: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        """(where, row) of a table; rows with a wrong number of cells are refused."""
        rows, uneven = read_rows(table, needed)
        for line in uneven:
            reason = "damaged row: not as many cells as the header has"
            rejected.append(Rejection(f"{table.name} line {line}", reason))
        return ((f"{table.name} line {line}", row) for line, row in rows)

    def _parts(
        self, table: evidence.PartTable[Part_co] | None, rejected: list[Rejection]
    ) -> dict[str, list[tuple[str, Part_co]]]:
        """Image -> what a table has of it, each with its line."""
        if table is None:
            return {}
        rows = self._read(self.root / expand(table.csv), table.needed, rejected)
        return evidence.by_image(table, rows, rejected)

    def _needed(self) -> set[str]:
        needed = set(self.columns.needed)
        if self.findings is not None:
            needed |= self.findings.needed
        if self.splits is not None and self.splits.column is not None:
            needed.add(self.splits.column)
        return needed

    def _image(self, where: str, row: Row) -> TableImage:
        """A row without its boxes. Raises ValueError with the reason to refuse it."""
        names = self.columns
        for key, column in (("patient", names.patient), ("image", names.image)):
            if not row[column]:
                raise ValueError(f"row without {key}")
        bits = row[names.bits] if names.bits else ""
        if bits and not (bits.isdigit() and 1 <= int(bits) <= 16):
            raise ValueError(f"bits out of range: in column '{names.bits}', accepted are 1 to 16")
        return TableImage(
            where=where,
            file=row[names.image],
            view=self._view(row),
            labels=tuple(self.findings.read(row).items()) if self.findings else (),
            boxes=(),
            report=row[names.report] if names.report else "",
            bits=int(bits) if bits else None,
        )

    def _view(self, row: Row) -> str:
        """The view of a row, "" where unknown. Raises ValueError."""
        word = row[self.columns.view] if self.columns.view else ""
        if word in self.views:
            return self.views[word]
        if word and not re.fullmatch(VIEW_CODE, word):
            where = f"in column '{self.columns.view}'"
            raise ValueError(f"unknown view: {where}, neither a short code nor in 'views'")
        return word

    def _study(self, row: Row) -> str:
        """What tells a patient's studies apart; the image itself where nothing else does."""
        cells = [row[column] for column in self.columns.of_study]
        return "\n".join(cells) if any(cells) else "image " + row[self.columns.image]


def _seen(image: TableImage, looks: tuple[Look, ...]) -> TableImage:
    """The image with where it was looked at."""
    known = {each.name: getattr(image, each.name) for each in fields(image)}
    return SeenImage(**known, looks=looks) if looks else image


def _planned(
    studies: Mapping[tuple[str, str], Sequence[TableImage]],
    splits: Mapping[str, set[str]],
    rejected: list[Rejection],
) -> Iterator[PlannedStudy]:
    """The studies of patients that have at most one official split; rows of others are refused."""
    for (patient, study), images in studies.items():
        names = sorted(splits[patient])
        if len(names) > 1:
            reason = f"patient in two official splits: {' and '.join(names)}"
            rejected += [Rejection(image.where, reason) for image in images]
        else:
            yield PlannedStudy(patient, study, tuple(images), names[0] if names else None)
