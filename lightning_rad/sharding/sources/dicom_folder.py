"""A folder of DICOM files as they come from an archive: patients and studies by their headers."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import Any, Final

from lightning_rad.modalities.dicom import DicomSettings, read_header
from lightning_rad.modalities.radiograph import Header, UnreadableImageError, read_image
from lightning_rad.schema import Radiograph
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources.findings import findings_from
from lightning_rad.sharding.sources.identifying import Value, in_dicom
from lightning_rad.sharding.sources.joins import Join, read_join

log = logging.getLogger(__name__)

KEYS: Final = {
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_uid",
    "AccessionNumber": "accession",
    "SOPInstanceUID": "instance_uid",
}
"""Tags that a table of labels may be joined by -> fields of Header."""

ALONE: Final = 256
"""Up to so many files, headers are read by this process alone."""


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A table that says more of the files: findings and reports.

    by: the tag that its key is, one of KEYS; column: the column that holds it, where it is called
    otherwise. findings: see `findings.FindingList` and `findings.FindingColumns`. report: a column.
    """

    csv: str
    by: str = "StudyInstanceUID"
    column: str = ""
    findings: Mapping[str, Any] | None = None
    report: str = ""

    def __post_init__(self) -> None:
        if self.by not in KEYS:
            raise ValueError(f"'by' is {self.by!r}; accepted are {', '.join(KEYS)}")
        if self.findings is None and not self.report:
            raise ValueError("give 'findings', 'report' or both")


@dataclass(frozen=True, slots=True)
class DicomImage:
    """One file. where: its number, since file names may be those of patients."""

    where: str
    file: str
    labels: tuple[tuple[str, int | None], ...]
    report: str


class DicomFolderSource:
    """Reads every DICOM radiograph in a folder and the folders in it.

    Args:
        root: The folder.
        pattern: Which files are read: a shell pattern of their paths below `root`, in which `*`
            crosses folders; "**/*" are all.
        dicom: What is accepted and how it is shown: see `modalities.dicom.DicomSettings`.
        labels: A table of findings and reports: see `StudyTable`.
    """

    version = 1
    """Raised with each change to what the files become."""

    def __init__(
        self,
        root: Path,
        *,
        pattern: str = "**/*",
        dicom: Mapping[str, Any] | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        at = "source.init_args."
        self.root = root
        self.pattern = pattern.removeprefix("**/")
        self.dicom = strictly(DicomSettings, dicom or {}, at + "dicom")
        self.table = strictly(StudyTable, labels, at + "labels") if labels else None
        self.findings = findings_from(self.table.findings) if self.table else None

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """The files grouped to studies by their headers, in sorted order. Raises ValueError."""
        rejected: list[Rejection] = []
        rows = self._rows(rejected)
        files = self._files()
        studies: dict[tuple[str, str], list[DicomImage]] = defaultdict(list)
        seen: dict[str, str] = {}
        known = 0
        for number, (file, header) in enumerate(zip(files, self._headers(files), strict=True), 1):
            where = f"file {number} of {len(files)}, sorted"
            reason = header if isinstance(header, str) else _fault(header, where, seen)
            if isinstance(header, str) or reason is not None:
                rejected.append(Rejection(where, str(reason)))
                continue
            row = rows.get(str(getattr(header, KEYS[self.table.by]))) if self.table else None
            try:
                labels = self.findings.read(row) if self.findings and row else {}
            except ValueError as error:
                rejected.append(Rejection(where, str(error)))
                continue
            known += row is not None
            report = row[self.table.report] if row and self.table and self.table.report else ""
            study = header.study_uid or f"file {file}"
            image = DicomImage(where, file, tuple(labels.items()), report)
            studies[header.patient_id, study].append(image)
        if self.table is not None:
            log.warning("%d of %d files are in %s", known, len(seen), self.table.csv)
        return [PlannedStudy(*key, tuple(images)) for key, images in studies.items()], rejected

    def read(self, study: PlannedStudy) -> ReadStudy:
        """The pixels of a study, with the view that each header says."""
        images: list[Radiograph] = []
        rejected: list[Rejection] = []
        for image in study.images:
            try:
                stored = read_image(self.root / image.file, dicom=self.dicom)
            except UnreadableImageError as error:
                rejected.append(Rejection(image.where, str(error)))
                continue
            view = stored.header.view if stored.header else ""
            images.append(Radiograph(stored.pixels, view, stored.bits, dict(image.labels)))
        report = next((image.report for image in study.images if image.report), None)
        return ReadStudy(tuple(images), report, tuple(rejected))

    def identifiers(self, columns: Sequence[str]) -> Iterator[Value]:
        """What shards must not hold, of all files; there are no columns to ask for."""
        if columns:
            raise ValueError("columns: a folder of DICOM files has no table that they are of")
        yield from in_dicom(self.root, self._files())

    def _rows(self, rejected: list[Rejection]) -> dict[str, dict[str, str]]:
        """Key -> the row of the table."""
        if self.table is None:
            return {}
        columns = sorted(self.findings.needed if self.findings else ())
        columns += [self.table.report] if self.table.report else []
        column = self.table.column or self.table.by
        join = Join(self.table.csv, {self.table.by: column}, columns)
        found = read_join(self.root, join, rejected)
        return {key: dict(zip(columns, row, strict=True)) for (key,), row in found.items() if key}

    def _files(self) -> list[str]:
        """The paths of all files, sorted, but the table's. Raises ValueError."""
        found: list[str] = []
        if not self.root.is_dir():
            raise ValueError(f"root: {self.root} is no folder; unpack an archive first")
        table = self.root / self.table.csv if self.table else None
        been: set[str] = set()
        for folder, inner, names in os.walk(self.root, onerror=_unreadable, followlinks=True):
            real = os.path.realpath(folder)
            if real in been:  # a link that leads back
                inner.clear()
                continue
            been.add(real)
            paths = (Path(folder, name) for name in names)
            relative = (p.relative_to(self.root).as_posix() for p in paths if p != table)
            found += (path for path in relative if fnmatchcase(path, self.pattern))
        if not found:
            raise ValueError(f"root: {self.root} has no file that matches '{self.pattern}'")
        return sorted(found)

    def _headers(self, files: Sequence[str]) -> Iterator[Header | str]:
        """The header of each file, or why it is refused; in order, read by several processes."""
        read = partial(_header_or_reason, self.root, self.dicom)
        workers = len(os.sched_getaffinity(0))
        if len(files) <= ALONE or workers == 1:
            yield from map(read, files)
            return
        with ExitStack() as stack:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            pool = stack.enter_context(ProcessPoolExecutor(workers, context, _watch_parent))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            block = 64 * ALONE  # what is handed out at once, so that memory stays bounded
            for start in range(0, len(files), block):
                yield from pool.map(read, files[start : start + block], chunksize=64)


def _header_or_reason(root: Path, settings: DicomSettings, file: str) -> Header | str:
    try:
        return read_header(root / file, settings)
    except UnreadableImageError as error:
        return str(error)


def _watch_parent() -> None:
    """End with the process that started this one, also where that is killed."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            wait_for([parent.sentinel])
            os._exit(1)

    Thread(target=watch, daemon=True).start()


def _fault(header: Header, where: str, seen: dict[str, str]) -> str | None:
    """Why a file that is a radiograph is refused nevertheless, or None."""
    if not header.patient_id:
        return "no patient: a header without PatientID"
    first = seen.setdefault(header.instance_uid or where, where)
    return None if first == where else f"duplicate key: the same image as {first}"


def _unreadable(error: OSError) -> None:
    raise ValueError(f"{error.filename}: {error.strerror}")
