"""Columns of another table, put to each row by a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.findings import texts
from lightning_rad.sharding.sources.rows import Row
from lightning_rad.sharding.sources.table_files import find_table, tables_of


@dataclass(frozen=True, slots=True)
class Join:
    """Columns of another table, or of several alike, put to each row by a key.

    by: the column, or columns, that both tables have, or {column here: column there}. columns:
    those that are taken over, or {new name: column there}. A row without a partner gets empty
    cells. twice: what a key is that the other table has on two lines that differ: refuse, or first
    (the first line counts). only: column there -> accepted cells; its other rows do not count.
    """

    csv: str | Mapping[str, Any] | Sequence[Any]
    by: str | Sequence[str] | Mapping[str, str]
    columns: Sequence[str] | Mapping[str, str]
    twice: str = "refuse"
    only: Mapping[str, Collection[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.twice not in ("refuse", "first"):
            raise ValueError(f"'twice' is {self.twice!r}; accepted are refuse, first")
        tables_of(self.csv, "csv")

    @property
    def keys(self) -> dict[str, str]:
        """Column of the rows -> column of the other table."""
        return _both([self.by] if isinstance(self.by, str) else self.by)

    @property
    def taken(self) -> dict[str, str]:
        """Name among the rows -> column of the other table."""
        return _both(self.columns)

    def put(self, row: Row, partners: Mapping[tuple[str, ...], tuple[str, ...]]) -> None:
        """Put the columns of a row's partner into it."""
        partner = partners.get(tuple(row[column] for column in self.keys))
        row.update(zip(self.taken, partner or [""] * len(self.taken), strict=True))


def read_join(
    root: Path, join: Join, rejected: list[Rejection]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Key -> the cells that are taken over. Raises ValueError for a key on two lines."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for table, where, row in _rows(root, join, rejected):
        key = tuple(row[column] for column in join.keys.values())
        cells = tuple(row[column] for column in join.taken.values())
        cells = shared.setdefault(cells, cells)
        if found.setdefault(key, cells) != cells and join.twice == "refuse":
            names = ", ".join(join.keys.values())
            raise ValueError(
                f"{find_table(root, table)}: {where} has the same {names} as a line before it, "
                "and other cells; 'twice: first' takes the first"
            )
    return found


def _rows(root: Path, join: Join, rejected: list[Rejection]) -> Iterator[tuple[str, str, Row]]:
    """(name of the table, where, row) of the rows that count."""
    only = {column: texts(cells) for column, cells in join.only.items()}
    needed = {*join.keys.values(), *join.taken.values(), *only}
    for table in tables_of(join.csv, "csv"):
        for where, row in table.rows(root, needed, rejected):
            if all(row[column] in cells for column, cells in only.items()):
                yield table.csv, where, row


def _both(columns: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
