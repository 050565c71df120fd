"""Masks as run lengths in one cell, and the boxes around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_rad.sharding.sources.rows import Row


@dataclass(frozen=True, slots=True)
class Runs:
    """A mask of `size` (height, width), as pairs of numbers apart by spaces: a gap, a length.

    Pixels are counted down the columns, from the upper left corner. A gap counts from the end of
    the run before, or, where `absolute`, from the first pixel of the image, which is number 1.
    """

    column: str
    size: Sequence[int]
    absolute: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.size, Sequence) and all(type(n) is int and n > 0 for n in self.size)
        if not whole or len(self.size) != 2:
            raise ValueError(f"'size' is {self.size!r}; accepted are height and width in pixels")

    def bounds(self, row: Row) -> tuple[float, float, float, float]:
        """x, y, w, h of the box around all of the mask. Raises ValueError."""
        try:
            numbers = [int(number) for number in row[self.column].split()]
        except ValueError:
            raise ValueError(f"damaged mask: in column '{self.column}'") from None
        if not numbers or len(numbers) % 2 or min(numbers) < 0:
            raise ValueError(f"damaged mask: no pairs of a gap and a length in '{self.column}'")
        height, width = self.size
        at, columns, rows = 0, [], []
        for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
            at = gap - 1 if self.absolute else at + gap
            if length:
                first, last = at, at + length - 1
                columns += [first // height, last // height]
                one = first // height == last // height
                rows += [first % height, last % height] if one else [0, height - 1]
            at += length
        if not columns or min(columns) < 0 or max(columns) >= width:
            raise ValueError("degenerate mask: empty, or beyond the image")
        x, y = min(columns), min(rows)
        return float(x), float(y), float(max(columns) - x + 1), float(max(rows) - y + 1)
