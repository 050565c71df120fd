"""Any table with folders of images: one row an image, columns named by the recipe.

Rows, boxes and fixations are refused by their line in the table, never by identifier or file name:
the list of what was refused lies beside the shards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from lightning_rad.modalities.radiograph import UnreadableImageError
from lightning_rad.modalities.report import NOTE_END, distinct_texts
from lightning_rad.schema import Radiograph
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources import evidence
from lightning_rad.sharding.sources.boxes import BoxTable, fused
from lightning_rad.sharding.sources.columns import Columns, OfficialSplits
from lightning_rad.sharding.sources.evidence import Part_co
from lightning_rad.sharding.sources.findings import findings_from
from lightning_rad.sharding.sources.identifying import Value, in_rows
from lightning_rad.sharding.sources.images import ImageFiles, images_from
from lightning_rad.sharding.sources.records import RecordReader, TableImage
from lightning_rad.sharding.sources.table_files import tables_of
from lightning_rad.sharding.sources.tables import tables_from

TRIED: Final = 64
"""Studies of which one at least must have a report file, where the recipe names such files."""


class TableSource:
    """Reads tables and the image files they name.

    Args:
        root: Folder of the raw data.
        csv: The table, relative to `root`; or several with the same columns; or the keys of
            `tables.Tables`: joins, extracted columns, rows that are left out, lists of files.
        columns: Keys image, patient and, where there are such, study, view, report, ...: names of
            columns or patterns of them, see `columns.Columns`. Rows of a patient with the same
            study are one study; a row whose study is blank, and every row without that key, is its
            own.
        folders: Where image files lie, relative to `root`; may hold wildcards; or the keys of
            `images.Images`.
        views: Word of the table -> word of the shard. Short codes (at most 16 of A-Z, 0-9, space,
            _ and -) need no entry and an empty cell is "", then a DICOM file's own view counts;
            any other word refuses the row, since it would be copied into the shard.
        labels: How findings are read: see `findings.FindingList` and `findings.FindingColumns`.
        boxes: The table of boxes: see `boxes.BoxTable`.
        gaze: The table of recorded fixations: see `evidence.GazeTable`.
        splits: Official splits: see `columns.OfficialSplits`.
    """

    version = 2
    """Raised with each change to what a table's rows become: 1, notes of a study are kept apart;
    2, images may be inverted or windowed by their row."""

    def __init__(
        self,
        root: Path,
        *,
        csv: str | Sequence[str] | Mapping[str, Any],
        columns: Mapping[str, Any],
        folders: Sequence[str] | Mapping[str, Any] = (".",),
        views: Mapping[str, str] | None = None,
        labels: Mapping[str, Any] | None = None,
        boxes: Mapping[str, Any] | None = None,
        gaze: Mapping[str, Any] | None = None,
        splits: Mapping[str, Any] | None = None,
    ) -> None:
        at = "source.init_args."
        self.root = root
        self.tables = tables_from(csv)
        self.columns = strictly(Columns, columns, at + "columns")
        self.files = ImageFiles(root, images_from(folders))
        self.views = dict(views or {})
        self.findings = findings_from(labels)
        self.boxes = strictly(BoxTable, boxes, at + "boxes") if boxes else None
        self.gaze = strictly(evidence.GazeTable, gaze, at + "gaze") if gaze else None
        self.splits = strictly(OfficialSplits, splits, at + "splits") if splits else None
        if self.columns.part is not None and (boxes or gaze):
            raise ValueError(f"{at}columns.part: no boxes or gaze with it, they are of whole files")

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """The rows grouped to studies, in the order of the table. Raises ValueError."""
        self.files.check()
        rejected: list[Rejection] = []
        boxes = self._parts(self.boxes, rejected)
        if self.boxes is not None and self.boxes.fuse is not None:
            boxes = {file: fused(found, self.boxes.fuse) for file, found in boxes.items()}
        looks = self._parts(self.gaze, rejected)
        official = self.splits.table(self.root) if self.splits else {}
        reader = RecordReader(self.columns, self.views, self.findings, boxes, looks)
        studies: dict[tuple[str, str], list[TableImage]] = defaultdict(list)
        splits: dict[str, set[str]] = defaultdict(set)
        for where, row in self.tables.rows(self.root, self._needed(), rejected):
            try:
                patient, image = reader.image(where, row)
                self.files.check_part(image.part)
                split = None
                if self.splits is not None:
                    split = self.splits.look_up(official, row, patient, image.file)
            except ValueError as error:
                rejected.append(Rejection(where, str(error)))
                continue
            reader.seen[image.name] = where
            boxes.pop(image.file, None)
            looks.pop(image.file, None)
            splits[patient] |= {split} if split else set()
            studies[patient, reader.study(row, image)].append(image)
        rejected += [*evidence.orphans("box", boxes), *evidence.orphans("gaze", looks)]
        planned = list(_planned(studies, splits, rejected))
        self._check_reports(planned)
        return planned, rejected

    def read(self, study: PlannedStudy) -> ReadStudy:
        """The images of a study; its report is what its rows, or their files, say, each text once.

        Texts that differ in case, spaces or marks of de-identification alone are one. Several are
        kept apart by NOTE_END, so that each is read as a report of its own.
        """
        images: list[Radiograph] = []
        rejected: list[Rejection] = []
        for image in study.images:
            try:
                pixels, bits, view = self.files.pixels(
                    image.file, bits=image.bits, inverted=image.inverted, part=image.part
                )
            except UnreadableImageError as error:
                rejected.append(Rejection(image.where, str(error)))
                continue
            seen = tuple(look.on(pixels.shape[1], pixels.shape[0]) for look in image.looks)
            known = (dict(image.labels), image.boxes, seen)
            images.append(Radiograph(pixels, image.view or view, bits, *known))
        texts = [image.report for image in study.images if image.report]
        filed = {image.report_files: image.where for image in study.images if image.report_files}
        for names, where in filed.items():
            try:
                texts.append(self._report(names))
            except ValueError as error:
                rejected.append(Rejection(where, str(error)))
        reports = [text for text in distinct_texts(texts) if text.strip()]
        return ReadStudy(tuple(images), NOTE_END.join(reports) or None, tuple(rejected))

    def identifiers(self, columns: Sequence[str]) -> Iterator[Value]:
        """What shards must not hold, of all rows; columns: further ones with such values."""
        yield from in_rows(self.root, self.tables, self.columns, columns)

    def _report(self, names: Sequence[str]) -> str:
        """The text of the first of some files that is there. Raises ValueError."""
        path = next((p for p in (self.root / name for name in names) if p.is_file()), None)
        if path is None:
            raise ValueError("missing report file")
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("damaged report: not UTF-8") from None
        except OSError as error:
            raise ValueError(f"unreadable report: {error.strerror}") from None

    def _check_reports(self, planned: Sequence[PlannedStudy]) -> None:
        """Raise ValueError where report files seem to lie elsewhere, before hours of work."""
        tried = planned[:: max(1, len(planned) // TRIED)]
        names = [n for study in tried for image in study.images for n in image.report_files]
        if names and not any((self.root / name).is_file() for name in names):
            patterns = " or ".join(p.text for p in self.columns["report_file"])
            raise ValueError(
                f"columns.report_file: none of {len(tried)} studies tried has {patterns} below "
                f"{self.root}; unpack the reports there, or take this key out of the recipe"
            )

    def _parts(
        self, table: evidence.PartTable[Part_co] | None, rejected: list[Rejection]
    ) -> dict[str, list[tuple[str, Part_co]]]:
        """Image -> what a table has of it, each with its line."""
        if table is None:
            return {}
        needed = table.needed
        several = (t.rows(self.root, needed, rejected) for t in tables_of(table.csv, "csv"))
        return evidence.by_image(table, chain.from_iterable(several), rejected)

    def _needed(self) -> set[str]:
        needed = set(self.columns.needed)
        if self.findings is not None:
            needed |= self.findings.needed
        if self.splits is not None:
            needed |= self.splits.needed
        return needed


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
