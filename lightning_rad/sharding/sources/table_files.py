"""The files of tables: found by their names, read as rows that have a place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.recipe import expand
from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.rows import Row, packed_or_not, read_rows


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose columns are called otherwise than in the recipe.

    columns: name in the recipe -> name in the file, for those that differ. cells: columns that the
    file lacks -> what is in all their cells, such as the split or the visit that a file is of.
    """

    csv: str
    columns: Mapping[str, str] = field(default_factory=dict)
    cells: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if both := sorted(set(self.columns) & set(self.cells)):
            raise ValueError(f"'{both[0]}' is in 'columns' and in 'cells'")

    def rows(
        self,
        root: Path,
        needed: Collection[str],
        rejected: list[Rejection],
        *,
        header: Sequence[str] | None = None,
    ) -> Iterator[tuple[str, Row]]:
        """(where, row) of the file; rows with a wrong number of cells are refused."""
        own = {name: self.columns.get(name, name) for name in needed if name not in self.cells}
        path = find_table(root, self.csv)
        given = {name: str(cell) for name, cell in self.cells.items()}
        for where, row in table_rows(path, set(own.values()), rejected, header=header):
            same = not (self.columns or given)
            yield where, row if same else {n: row[c] for n, c in own.items()} | given


def tables_of(given: str | Mapping[str, Any] | Sequence[Any], where: str) -> tuple[Table, ...]:
    """The tables that a recipe names: a name, the keys of `Table`, or several of these."""
    if isinstance(given, str):
        return (Table(given),)
    if isinstance(given, Mapping):
        return (strictly(Table, given, where),)
    return tuple(table for i, one in enumerate(given) for table in tables_of(one, f"{where}[{i}]"))


def find_table(root: Path, name: str) -> Path:
    """The file of a table. Raises ValueError where wildcards match none or several."""
    path = root / expand(name)
    if not has_magic(name):
        return path
    either = glob(str(path)) + glob(f"{path}.gz")
    found = sorted({Path(p.removesuffix(".gz")) for p in either})  # as CSV or packed, or both
    if len(found) != 1:
        several = ", ".join(str(p.relative_to(root)) for p in found[:3]) or "none"
        raise ValueError(f"{path}: one file is expected to match, found {several}")
    return packed_or_not(found[0])


def table_rows(
    table: Path,
    needed: Collection[str],
    rejected: list[Rejection],
    *,
    header: Sequence[str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """(where, row) of one table; rows with a wrong number of cells are refused."""
    for line, row in read_rows(table, needed, header=header):
        where = f"{table.name} line {line}"
        if row is None:
            reason = "damaged row: not as many cells as the header has"
            rejected.append(Rejection(where, reason))
        else:
            yield where, row
