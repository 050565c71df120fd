"""What in the rows or files of a source says who somebody is: what shards must not hold.

Each value comes as (where, kind, value, patient), see `sharding.privacy`; a path as kind "path".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_rad.modalities.dicom import identifying_values
from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.columns import Columns
from lightning_rad.sharding.sources.tables import Tables

Value = tuple[str, str, str, str]


def in_rows(
    root: Path, tables: Tables, columns: Columns, further: Sequence[str]
) -> Iterator[Value]:
    """Of every row, whether it is accepted or not: patient, study, the paths of its files.

    further: columns that the recipe does not use. Raises ValueError where one is not there.
    """
    passed_over: list[Rejection] = []
    for where, row in tables.every_row(root, {*columns.needed, *further}, passed_over):
        patient = columns["patient"][0].whole(row)
        yield where, "patient", patient, patient
        for pattern in columns["study"]:
            yield where, "study", pattern.fill(row), patient
        for pattern in (*columns["image"], *columns["report_file"]):
            yield where, "path", pattern.whole(row), patient
        for column in further:
            yield where, column, row[column], patient


def in_dicom(root: Path, files: Sequence[str]) -> Iterator[Value]:
    """Of every file: its path, and what its header says of patient, study, people and places."""
    for number, file in enumerate(files, 1):
        where = f"file {number} of {len(files)}, sorted"
        values = identifying_values(root / file)
        owner = values.get("PatientID", file)
        yield where, "path", file, owner
        for keyword, value in values.items():
            yield where, keyword, value, owner
