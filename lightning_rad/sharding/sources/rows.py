"""Reading a table file as rows of strings that know their line, a few at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from sys import intern
from typing import IO, Any, Final

Row = dict[str, str]

DELIMITERS: Final = {".tsv": "\t", ".txt": "|"}
"""Suffix -> what stands between cells, where that is no comma."""


def read_rows(
    path: Path, needed: Collection[str], *, header: Sequence[str] | None = None
) -> Iterator[tuple[int, Row | None]]:
    """(line, the needed cells) of a table, also gzipped: CSV, TSV, JSON lines or a JSON array.

    A .txt file is a table whose cells are apart by "|". Of an array, the line is the number of the
    object.
    None stands for a line with another number of cells than the header has, or that is no JSON.
    Cells are stripped of white space; a byte order mark and Windows line ends are understood.
    Columns without a name at the end of a header do not count, where their cells are empty.

    header: the names of the columns of a file that does not say them. A file that is there only
    packed, or only unpacked, is found by either name. Raises ValueError naming the file, and a
    missing column with those there are.
    """
    found = packed_or_not(path)
    try:
        with open(found, "rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise ValueError(f"{found}: a zip archive; unpack it first")
        plain = found.with_suffix("") if found.suffix == ".gz" else found
        opener: Any = gzip.open if found.suffix == ".gz" else open
        with (
            opener(found, "rb") as opened,
            io.TextIOWrapper(opened, "utf-8-sig", newline="") as text,
        ):
            if plain.suffix in (".json", ".jsonl"):
                yield from _json_rows(found, text, needed)
            else:
                delimiter = DELIMITERS.get(plain.suffix, ",")
                yield from _csv_rows(found, text, needed, (delimiter, header))
    except OSError as error:
        raise ValueError(f"{found}: {error.strerror or error}") from None
    except (UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"{found}: not a UTF-8 table: {error}") from None


def packed_or_not(path: Path) -> Path:
    """The file, or the same one with or without .gz where only that is there."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return other if not path.exists() and other.exists() else path


def _csv_rows(
    path: Path,
    text: IO[str],
    needed: Collection[str],
    form: tuple[str, Sequence[str] | None],
) -> Iterator[tuple[int, Row | None]]:
    delimiter, header = form
    reader = csv.reader(text, delimiter=delimiter)
    try:
        names = list(header) if header else [name.strip() for name in next(reader, [])]
        while names and not names[-1]:
            names.pop()
        if not names:
            raise ValueError(f"{path}: the table is empty")
        places = {name: names.index(name) for name in check_columns(path, names, needed)}
        count = 0
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # a blank line is no row
            count += 1
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            whole = len(cells) == len(names)
            yield reader.line_num, _cells(cells, places) if whole else None
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None
    if not count:
        raise ValueError(f"{path}: the table has {'no rows' if header else 'a header but no rows'}")


def _cells(cells: Sequence[str], places: dict[str, int]) -> Row:
    """Short cells repeat in every row: each is held once."""
    stripped = ((name, cells[place].strip()) for name, place in places.items())
    return {name: intern(cell) if len(cell) < 16 else cell for name, cell in stripped}


def _json_rows(
    path: Path, text: IO[str], needed: Collection[str]
) -> Iterator[tuple[int, Row | None]]:
    """One object a line, or in an array; null is an empty cell."""
    names: list[str] | None = None
    for line, record in _records(path, text):
        if not isinstance(record, dict):
            if names is None:
                raise ValueError(f"{path}: line {line}: no JSON object; one a line is expected")
            yield line, None
            continue
        if names is None:
            names = check_columns(path, list(record), needed)
        values = ("" if record.get(n) is None else str(record[n]).strip() for n in names)
        yield line, dict(zip(names, values, strict=True))
    if names is None:
        raise ValueError(f"{path}: the table is empty")


def _records(path: Path, text: IO[str]) -> Iterator[tuple[int, Any]]:
    """(line, what it says), None where that is no JSON; of an array (number, object)."""
    first = True
    for line, body in enumerate(text, 1):
        if not body.strip():
            continue
        if first and body.lstrip().startswith("["):
            try:
                yield from enumerate(json.loads(body + text.read()), 1)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}: no JSON array: {error}") from None
            return
        first = False
        try:
            yield line, json.loads(body)
        except json.JSONDecodeError:
            yield line, None


def check_columns(path: Path, names: Sequence[str], needed: Collection[str]) -> list[str]:
    """The needed columns, sorted. Raises ValueError where one is missing, or is there twice."""
    if twice := sorted(name for name in set(needed) if names.count(name) > 1):
        raise ValueError(f"{path}: column '{twice[0]}' occurs twice")
    if missing := sorted(set(needed) - set(names)):
        raise ValueError(f"{path}: no column '{missing[0]}'; there are {', '.join(names)}")
    return sorted(set(needed))
