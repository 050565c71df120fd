"""Reading a CSV file as rows of strings that know their line."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Collection, Iterator
from pathlib import Path

Row = dict[str, str]


def read_rows(path: Path, needed: Collection[str]) -> tuple[list[tuple[int, Row]], list[int]]:
    """(line, row) of a CSV (.tsv, .gz) with a header, and the lines with a wrong number of cells.

    Cells are stripped of white space; a byte order mark and Windows line ends are understood.
    Raises ValueError naming the file, and a missing column with those there are.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"{path}: not a UTF-8 table: {error}") from None
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return _rows(path, ((reader.line_num, cells) for cells in reader), needed)
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None


def _rows(
    path: Path, lines: Iterator[tuple[int, list[str]]], needed: Collection[str]
) -> tuple[list[tuple[int, Row]], list[int]]:
    header = [name.strip() for name in next(lines, (0, []))[1]]
    if not header:
        raise ValueError(f"{path}: the table is empty")
    if twice := sorted(name for name in set(needed) if header.count(name) > 1):
        raise ValueError(f"{path}: column '{twice[0]}' occurs twice")
    if missing := sorted(set(needed) - set(header)):
        raise ValueError(f"{path}: no column '{missing[0]}'; there are {', '.join(header)}")
    rows: list[tuple[int, Row]] = []
    uneven: list[int] = []
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue  # a blank line is no row
        if len(cells) == len(header):
            values = (cell.strip() for cell in cells)
            rows.append((line, dict(zip(header, values, strict=True))))
        else:
            uneven.append(line)
    if not rows and not uneven:
        raise ValueError(f"{path}: the table has a header but no rows")
    return rows, uneven
