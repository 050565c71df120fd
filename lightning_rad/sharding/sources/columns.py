"""How the cells of a table are read: findings, official splits. All values are strings.

What an error says ends in a file beside the shards, and a cell may hold anything (a shifted row a
name), so errors name the column and never repeat the cell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lightning_rad.schema import SPLITS
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.sources.rows import Row

Labels = dict[str, int | None]

STATES: Final = {"present": 1, "absent": 0, "unknown": None}
"""Words of a recipe for the three values of a label."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns. study: one or several that together tell studies of a patient apart;
    bits: significant bits of 16-bit images."""

    image: str
    patient: str
    study: str | Sequence[str] | None = None
    view: str | None = None
    report: str | None = None
    bits: str | None = None

    @property
    def of_study(self) -> tuple[str, ...]:
        """The columns that tell a patient's studies apart; none means: every image does."""
        return (self.study,) if isinstance(self.study, str) else tuple(self.study or ())

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        single = (self.image, self.patient, self.view, self.report, self.bits)
        return {c for c in (*single, *self.of_study) if c}


@dataclass(frozen=True, slots=True)
class FindingList:
    """One column that lists the findings present: "Cardiomegaly|Effusion".

    nothing: words that say that nothing was found. nothing_column, nothing_values: a column that
    says so. blank: what an empty cell means where nothing says otherwise; unlisted: what a filled
    cell means for the findings that it does not name. others: words that are passed over; any
    word that is in none of these lists refuses the row.
    """

    column: str
    findings: Sequence[str]
    separator: str = "|"
    nothing: Collection[str] = ("No Finding",)
    nothing_column: str | None = None
    nothing_values: Collection[str] = ("1",)
    blank: str = "unknown"
    unlisted: str = "absent"
    others: Collection[str] = ()

    def __post_init__(self) -> None:
        for key in ("blank", "unlisted"):
            if getattr(self, key) not in STATES:
                raise ValueError(f"'{key}' is {getattr(self, key)!r}; accepted are {[*STATES]}")

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        return {self.column} | ({self.nothing_column} if self.nothing_column else set())

    def read(self, row: Row) -> Labels:
        """The labels of a row. Raises ValueError for a word that the recipe does not know."""
        words = {w.strip() for w in row[self.column].split(self.separator)} - {""}
        clear = bool(words & set(self.nothing))
        if self.nothing_column:
            clear |= row[self.nothing_column] in texts(self.nothing_values)
        named = words - set(self.nothing) - set(self.others)
        if named - set(self.findings):
            raise ValueError(f"unknown finding: in column '{self.column}'")
        if clear and named:
            raise ValueError(f"contradicting labels: nothing found, and '{min(named)}'")
        rest = STATES["absent" if clear else self.unlisted if words else self.blank]
        return {f: 1 if f in named else rest for f in self.findings}


@dataclass(frozen=True, slots=True)
class FindingColumns:
    """One column a finding. columns: finding -> column, or a list where both are called the same.

    present, absent, unknown: the cells that mean so; any other cell refuses the row.
    """

    columns: Mapping[str, str] | Sequence[str]
    present: Collection[str] = ("1", "1.0")
    absent: Collection[str] = ("0", "0.0")
    unknown: Collection[str] = ("", "-1", "-1.0")

    @property
    def column_of(self) -> dict[str, str]:
        """Finding -> column."""
        if isinstance(self.columns, Mapping):
            return dict(self.columns)
        return {name: name for name in self.columns}

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        return set(self.column_of.values())

    def read(self, row: Row) -> Labels:
        """The labels of a row. Raises ValueError for a cell that the recipe does not know."""
        labels: Labels = {}
        for finding, column in self.column_of.items():
            cell = row[column]
            means = [s for s in STATES if cell in texts(getattr(self, s))]
            if not means:
                raise ValueError(f"label out of range: in column '{column}'")
            labels[finding] = STATES[means[0]]
        return labels


Findings = FindingList | FindingColumns


def findings_from(settings: Mapping[str, Any] | None) -> Findings | None:
    """The reader of findings that a recipe asks for."""
    where = "source.init_args.labels"
    if settings is None:
        return None
    if "column" in settings:
        return strictly(FindingList, settings, where)
    if "columns" in settings:
        return strictly(FindingColumns, settings, where)
    raise ValueError(f"{where}: give 'column' (a list in one cell) or 'columns' (one a finding)")


@dataclass(frozen=True, slots=True)
class OfficialSplits:
    """Splits that the makers of a set gave: by a column, or by lists of patients or images.

    values: split -> cells of `column`. by_hash: cells whose patients are split by hash. lists:
    split -> file with one patient or image name (`of`) a line; who is in no list is split by hash.
    """

    column: str | None = None
    values: Mapping[str, Collection[str]] = field(default_factory=dict)
    by_hash: Collection[str] = ()
    lists: Mapping[str, str] = field(default_factory=dict)
    of: str = "patient"

    def __post_init__(self) -> None:
        if (self.column is None) == (not self.lists):
            raise ValueError("give either 'column' with 'values', or 'lists'")
        if self.of not in ("patient", "image"):
            raise ValueError(f"'of' is {self.of!r}; accepted are patient, image")
        for split in (*self.values, *self.lists):
            if split not in SPLITS:
                raise ValueError(f"unknown split '{split}'; accepted are {', '.join(SPLITS)}")

    def table(self, root: Path) -> dict[str, str | None]:
        """What a row is looked up by -> its split. Raises ValueError for a name in two lists."""
        if self.column is not None:
            cells = {c: s for s, given in self.values.items() for c in texts(given)}
            return cells | dict.fromkeys(texts(self.by_hash))
        found: dict[str, str | None] = {}
        for split, file in self.lists.items():
            try:
                names = (root / file).read_text(encoding="utf-8-sig").split()
            except OSError as error:
                raise ValueError(f"splits.lists: {root / file}: {error.strerror}") from None
            for name in names:
                if found.setdefault(name, split) != split:
                    raise ValueError(f"splits.lists: a name of {file} is in another list too")
        return found

    def look_up(self, table: Mapping[str, str | None], row: Row, columns: Columns) -> str | None:
        """The split of a row, None for one that is placed by hash. Raises ValueError."""
        if self.column is None:
            by_patient = self.of == "patient"
            return table.get(row[columns.patient] if by_patient else Path(row[columns.image]).name)
        cell = row[self.column]
        if cell not in table:
            raise ValueError(f"unknown split: in column '{self.column}'")
        return table[cell]


def texts(values: Collection[Any]) -> set[str]:
    """Values of a recipe as a table spells them: YAML's 1 is the cell "1"."""
    return {str(v) for v in values}
