"""Several rows of one image as one: a row a box or a mask, or a row a reader."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.findings import texts
from lightning_rad.sharding.sources.rows import Row

CELLS: Final = {"present": "1", "absent": "0", "unknown": "-1"}
"""What a column says after a vote."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows with the same cells in `by` are one row, at the place of the first.

    votes: columns of which each row is another reader's opinion: "1" where more than half of the
    readers say so (`present`), "0" where none does (the others say `absent`), else what `minority`
    says: unknown ("-1"), present or absent. All other columns that the recipe reads must agree.
    """

    by: str | Sequence[str]
    votes: Collection[str] = ()
    present: Collection[str] = ("1", "1.0")
    absent: Collection[str] = ("0", "0.0", "")
    minority: str = "unknown"

    def __post_init__(self) -> None:
        if self.minority not in CELLS:
            raise ValueError(f"'minority' is {self.minority!r}; accepted are {[*CELLS]}")

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of `by`."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    def rows(
        self, rows: Iterable[tuple[str, Row]], columns: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        """One row an image, of the given columns; of rows that contradict the first, a rejection.

        Holds all of these rows.
        """
        groups: dict[tuple[str, ...], list[tuple[str, Row]]] = {}
        for where, row in rows:
            group = groups.setdefault(tuple(row[column] for column in self.keys), [])
            group.append((where, {c: row[c] for c in columns}))
        voted = sorted(set(self.votes) & set(columns))
        fixed = sorted(set(columns) - set(voted))
        for (place, first), *others in groups.values():
            agreeing = [first]
            for where, row in others:
                if differs := next((c for c in fixed if row[c] != first[c]), None):
                    reason = f"contradicting rows: another '{differs}' than {place}"
                    rejected.append(Rejection(where, reason))
                else:
                    agreeing.append(row)
            yield place, first | {c: self._vote([row[c] for row in agreeing]) for c in voted}

    def _vote(self, cells: Sequence[str]) -> str:
        """The cell of all readers; a cell that says nothing known is kept, to be refused."""
        known = texts(self.present) | texts(self.absent)
        strange = next((cell for cell in cells if cell not in known), None)
        if strange is not None:
            return strange
        ayes = sum(cell in texts(self.present) for cell in cells)
        state = "absent" if not ayes else "present" if 2 * ayes > len(cells) else self.minority
        return CELLS[state]
