"""The rows that a source is made from: one table or several alike, a list of files, joins.

Whatever the rows come from, each has a place that a user finds it by (file and line), and the
columns that the recipe names; new columns are cut from others by regular expressions.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, Final, cast

from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.findings import texts
from lightning_rad.sharding.sources.joins import Join, read_join
from lightning_rad.sharding.sources.merge import Merge
from lightning_rad.sharding.sources.rows import Row
from lightning_rad.sharding.sources.table_files import tables_of

log = logging.getLogger(__name__)

FILE: Final = "file"
"""The column of rows that are files: the path below the root, with forward slashes."""


@dataclass(frozen=True, slots=True)
class Extract:
    """A new column: what the one group of a regular expression finds in another one."""

    column: str
    pattern: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r}: {error}") from None
        if groups != 1:
            raise ValueError(f"pattern {self.pattern!r} must have one group, it has {groups}")


@dataclass(frozen=True, slots=True)
class Tables:
    """What rows there are.

    tables: a table, or several that are read one after the other; names may hold wildcards that
    match one file; see `table_files.Table` for columns of other names. files: instead of tables,
    wildcards of image files: each is a row with one column, `file`. header: names of the columns
    of tables that do not say them. joins: see `Join`. extract: new column -> see `Extract`. only:
    column -> accepted cells; other rows are left out, which is logged and no rejection. merge: see
    `merge.Merge`.
    """

    tables: str | Mapping[str, Any] | Sequence[Any] = ()
    files: str | Sequence[str] = ()
    header: Sequence[str] | None = None
    joins: Sequence[Any] = ()
    extract: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Collection[Any]] = field(default_factory=dict)
    merge: Any = None

    def __post_init__(self) -> None:
        if bool(self.tables) == bool(self.files):
            raise ValueError("give either 'tables' or 'files'")
        at = "source.init_args.csv."
        joins = [strictly(Join, j, f"{at}joins[{i}]") for i, j in enumerate(self.joins)]
        extract = {n: strictly(Extract, e, f"{at}extract.{n}") for n, e in self.extract.items()}
        if same := sorted(n for n, e in extract.items() if n == e.column):
            raise ValueError(f"{at}extract.{same[0]}: the new column needs a name of its own")
        tables_of(self.tables, at + "tables")
        if self.merge is not None:
            object.__setattr__(self, "merge", strictly(Merge, self.merge, at + "merge"))
        object.__setattr__(self, "joins", joins)
        object.__setattr__(self, "extract", extract)

    def rows(
        self, root: Path, needed: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        """(where, row) in order; what is no row goes to `rejected`. Raises ValueError."""
        if self.merge is None:
            return self.every_row(root, needed, rejected)
        apart = self.every_row(root, {*needed, *self.merge.keys}, rejected)
        return cast(Merge, self.merge).rows(apart, needed, rejected)

    def every_row(
        self, root: Path, needed: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        """As `rows`, but none are merged."""
        own = self._own_columns(needed)
        joined = [(join, read_join(root, join, rejected)) for join in self.joins]
        before, after = self._extracts()
        left_out = Counter[str]()
        for where, row in self._own_rows(root, own, rejected):
            fault = _cut(row, before)
            if fault is None:
                for join, partners in joined:
                    join.put(row, partners)
                fault = _cut(row, after)
            if fault is not None:
                rejected.append(Rejection(where, fault))
            elif column := next((c for c in self.only if row[c] not in texts(self.only[c])), None):
                left_out[column] += 1
            else:
                yield where, row
        for column, count in left_out.items():
            log.warning(
                "%d rows are left out: their '%s' is none of %s",
                count,
                column,
                ", ".join(map(str, self.only[column])),
            )

    def _own_rows(
        self, root: Path, own: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        if self.files:
            yield from _listed(root, self.files, own)
            return
        for table in tables_of(self.tables, "tables"):
            yield from table.rows(root, own, rejected, header=self.header)

    def _own_columns(self, needed: Collection[str]) -> set[str]:
        """The columns that the rows bring themselves."""
        wanted = {*needed, *self.only, *(e.column for e in self.extract.values())}
        wanted |= {column for join in self.joins for column in join.keys}
        return wanted - {name for join in self.joins for name in join.taken} - set(self.extract)

    def _extracts(self) -> tuple[dict[str, Extract], dict[str, Extract]]:
        """Those that joins may need as keys, and those of joined columns, which come after."""
        late = {name for join in self.joins for name in join.taken}
        before: dict[str, Extract] = {}
        after: dict[str, Extract] = {}
        for name, extract in self.extract.items():
            part = after if extract.column in late else before
            part[name] = extract
            late |= {name} if part is after else set()
        return before, after


def _cut(row: Row, extracts: Mapping[str, Extract]) -> str | None:
    """Put the extracted columns into a row; why that cannot be, without the cell."""
    for name, extract in extracts.items():
        match = re.search(extract.pattern, row[extract.column])
        if match is None:
            return f"unexpected cell: in column '{extract.column}', no {name} in it"
        row[name] = (match[1] or "").strip()
    return None


def tables_from(csv: str | Sequence[str] | Mapping[str, Any]) -> Tables:
    """What rows a recipe's `csv` asks for: a name, several, or the keys of `Tables`."""
    given = csv if isinstance(csv, Mapping) else {"tables": csv}
    return strictly(Tables, given, "source.init_args.csv")


def _listed(
    root: Path, patterns: str | Sequence[str], own: Collection[str]
) -> Iterator[tuple[str, Row]]:
    """A row a file, sorted; its place is its number, since names may be of patients."""
    if other := sorted(set(own) - {FILE}):
        raise ValueError(f"csv.files: no column '{other[0]}'; rows of files have '{FILE}' alone")
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = sorted(Path(name).as_posix() for name in glob(pattern, root_dir=root))
        if not names:
            raise ValueError(f"{root}: no file matches '{pattern}' (csv.files)")
        for number, name in enumerate(names, 1):
            yield f"file {number} of {pattern}, sorted", {FILE: name}
