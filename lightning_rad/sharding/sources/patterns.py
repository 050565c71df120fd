"""Names put together from cells: "files/p{subject_id:.2}/s{study_id}/{dicom_id}.jpg"."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lightning_rad.sharding.sources.rows import Row


@dataclass(frozen=True, slots=True)
class Pattern:
    """The name of a column, or a text with columns in braces.

    {column} is the cell, {column:.N} its first N characters. A text without braces is one column.
    """

    text: str
    columns: frozenset[str] = field(init=False)
    _parts: tuple[tuple[str, str, int | None], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise ValueError(f"expected the name of a column, or a pattern, got {self.text!r}")
        text = self.text if set("{}") & set(self.text) else "{" + self.text + "}"
        pieces = re.split(r"\{([^{}]+?)(?::\.(\d+))?\}", text)
        if any(set("{}") & set(plain) for plain in pieces[::3]):
            raise ValueError(f"pattern {self.text!r}: accepted are {{column}} and {{column:.N}}")
        parts = [
            (plain, column, int(length) if length else None)
            for plain, column, length in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False)
        ]
        object.__setattr__(self, "columns", frozenset(column for _, column, _ in parts))
        object.__setattr__(self, "_parts", (*parts, (pieces[-1], "", None)))

    def fill(self, row: Row) -> str:
        """The text of a row; a cell may be empty."""
        return "".join(
            plain + (row[column][:length] if column else "")
            for plain, column, length in self._parts
        ).strip()

    def whole(self, row: Row) -> str:
        """As `fill`, but "" where any of the cells is empty."""
        return self.fill(row) if all(row[column] for column in self.columns) else ""
