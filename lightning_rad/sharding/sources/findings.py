"""How the findings of a row are read: as a list in one cell, or from one column a finding.

What an error says ends in a file beside the shards, and a cell may hold anything (a shifted row a
name), so errors name the column and never repeat the cell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.sources.rows import Row

Labels = dict[str, int | None]

STATES: Final = {"present": 1, "absent": 0, "unknown": None}
"""Words of a recipe for the three values of a label."""

ANY: Final = "any"
"""`others: any`: every word that stands for no finding is passed over."""


@dataclass(frozen=True, slots=True)
class FindingList:
    """One column that lists the findings present: "Cardiomegaly|Effusion".

    findings: the words, or {finding: word or words that stand for it}. separator, trim: between
    words, and characters that are taken off around them. nothing: words that say that nothing was
    found. nothing_column, nothing_values: a column that says so. blank: what an empty cell means
    where nothing says otherwise; unlisted: what a filled cell means for the findings that it does
    not name. unsure: words ("unchanged") that leave unknown what their cell does not name. others:
    words that are passed over, or "any"; any word that is in none of these lists refuses the row.
    """

    column: str
    findings: Sequence[str] | Mapping[str, Any]
    separator: str = "|"
    trim: str = ""
    nothing: Collection[str] = ("No Finding",)
    nothing_column: str | None = None
    nothing_values: Collection[str] = ("1",)
    blank: str = "unknown"
    unlisted: str = "absent"
    unsure: Collection[str] = ()
    others: Collection[str] | str = ()

    def __post_init__(self) -> None:
        for key in ("blank", "unlisted"):
            if getattr(self, key) not in STATES:
                raise ValueError(f"'{key}' is {getattr(self, key)!r}; accepted are {[*STATES]}")
        if isinstance(self.others, str) and self.others != ANY:
            raise ValueError(f"'others' is {self.others!r}; accepted are a list of words, or any")

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        return {self.column} | ({self.nothing_column} if self.nothing_column else set())

    def read(self, row: Row) -> Labels:
        """The labels of a row. Raises ValueError for a word that the recipe does not know."""
        words = {w.strip().strip(self.trim or None) for w in row[self.column].split(self.separator)}
        words -= {""}
        clear = bool(words & set(self.nothing))
        if self.nothing_column:
            clear |= row[self.nothing_column] in texts(self.nothing_values)
        finding_of = self._finding_of()
        rest = words - set(self.nothing) - set(self.unsure) - finding_of.keys()
        if self.others != ANY and rest - set(self.others):
            raise ValueError(f"unknown finding: in column '{self.column}'")
        named = {finding_of[word] for word in words & finding_of.keys()}
        if clear and named:
            raise ValueError(f"contradicting labels: nothing found, and '{min(named)}'")
        state = "absent" if clear else self.unlisted if words else self.blank
        if not clear and words & set(self.unsure):
            state = "unknown"
        return {f: 1 if f in named else STATES[state] for f in dict.fromkeys(self.findings)}

    def _finding_of(self) -> dict[str, str]:
        """Word -> the finding that it stands for."""
        if not isinstance(self.findings, Mapping):
            return {finding: finding for finding in self.findings}
        return {
            word: finding
            for finding, words in self.findings.items()
            for word in ([words] if isinstance(words, str) else words)
        }


@dataclass(frozen=True, slots=True)
class FindingColumns:
    """One column a finding. columns: finding -> column, or a list where both are called the same.

    present, absent, unknown: the cells that mean so; any other cell refuses the row.
    nothing_column, nothing_values: a column that says that nothing was found: then findings that
    the row leaves unknown are absent, but for those in `nothing_spares` (support devices), of which
    "nothing found" says nothing.
    """

    columns: Mapping[str, str] | Sequence[str]
    present: Collection[str] = ("1", "1.0")
    absent: Collection[str] = ("0", "0.0")
    unknown: Collection[str] = ("", "-1", "-1.0")
    nothing_column: str | None = None
    nothing_values: Collection[str] = ("1", "1.0")
    nothing_spares: Collection[str] = ()

    def __post_init__(self) -> None:
        if strange := sorted(set(self.nothing_spares) - set(self.column_of)):
            raise ValueError(f"'nothing_spares' names '{strange[0]}', which is no finding")

    @property
    def column_of(self) -> dict[str, str]:
        """Finding -> column."""
        if isinstance(self.columns, Mapping):
            return dict(self.columns)
        return {name: name for name in self.columns}

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        also = {self.nothing_column} if self.nothing_column else set()
        return set(self.column_of.values()) | also

    def read(self, row: Row) -> Labels:
        """The labels of a row. Raises ValueError for a cell that the recipe does not know."""
        labels: Labels = {}
        for finding, column in self.column_of.items():
            cell = row[column]
            means = [s for s in STATES if cell in texts(getattr(self, s))]
            if not means:
                raise ValueError(f"label out of range: in column '{column}'")
            labels[finding] = STATES[means[0]]
        if self.nothing_column and row[self.nothing_column] in texts(self.nothing_values):
            bound = [f for f in labels if f not in self.nothing_spares]
            if named := sorted(f for f in bound if labels[f] == 1):
                raise ValueError(f"contradicting labels: nothing found, and '{named[0]}'")
            labels |= dict.fromkeys(bound, 0)
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


def texts(values: Collection[Any]) -> set[str]:
    """Values of a recipe as a table spells them: YAML's 1 is the cell "1"."""
    return {str(v) for v in values}
