"""How tables of parts of images are read, and that of fixations. All values are strings.

Errors name the column and never repeat the cell, as in `columns`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from lightning_rad.schema import Fixation
from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.patterns import Pattern
from lightning_rad.sharding.sources.rows import Row

Part_co = TypeVar("Part_co", covariant=True)


class PartTable(Protocol[Part_co]):
    """A table whose rows say something of images, which they name as the table of images does."""

    @property
    def csv(self) -> str | Mapping[str, Any] | Sequence[Any]:
        """The file, or files, relative to the root: see `table_files.tables_of`."""
        ...

    @property
    def image(self) -> str:
        """The column or pattern that gives what `columns.image` gives."""
        ...

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        ...

    def read(self, row: Row) -> Part_co | None:
        """What a row says, None where it says that there is nothing. Raises ValueError."""
        ...


def by_image(
    table: PartTable[Part_co], rows: Iterable[tuple[str, Row]], rejected: list[Rejection]
) -> dict[str, list[tuple[str, Part_co]]]:
    """Image -> what the rows say of it, each with where it says so; bad rows are refused."""
    found: dict[str, list[tuple[str, Part_co]]] = defaultdict(list)
    image = Pattern(table.image)
    for where, row in rows:
        try:
            part = table.read(row)
            if part is not None:
                found[image.fill(row)].append((where, part))
        except ValueError as error:
            rejected.append(Rejection(where, str(error)))
    return found


def orphans(what: str, left: Mapping[str, Sequence[tuple[str, object]]]) -> Iterator[Rejection]:
    """A refusal for each box or fixation of an image that no accepted row has."""
    for place, _ in (orphan for found in left.values() for orphan in found):
        yield Rejection(place, f"{what} without image: no accepted row has its image")


@dataclass(frozen=True, slots=True)
class Look:
    """A fixation as a table has it: x and y in pixels of a picture of a size, None the file's."""

    x: float
    y: float
    seconds: float
    size: tuple[float, float] | None = None

    def on(self, width: int, height: int) -> Fixation:
        """The same in fractions of the picture, whose file has this size."""
        across, down = self.size or (width, height)
        return Fixation(self.x / across, self.y / down, self.seconds)


@dataclass(frozen=True, slots=True)
class GazeTable:
    """A table with one row a fixation, those of an image in the order in which they were made.

    image: column or pattern that gives what `columns.image` gives. x, y: columns of the place in
    pixels, from the left and upper border. seconds: of the duration.
    width, height: columns of the size in pixels of the picture that x and y are of, where that is
    not the image file's own: readers may have seen the original of a file that was made smaller.
    """

    csv: str
    image: str = "image"
    x: str = "x"
    y: str = "y"
    seconds: str = "seconds"
    width: str | None = None
    height: str | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ValueError("give both of 'width' and 'height', or neither")

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        names = (self.x, self.y, self.seconds, self.width, self.height)
        return {*Pattern(self.image).columns} | {name for name in names if name is not None}

    def read(self, row: Row) -> Look:
        """The fixation of a row; it may lie outside the picture. Raises ValueError."""
        x, y, seconds = (number(row, column, "gaze") for column in (self.x, self.y, self.seconds))
        if not all(map(math.isfinite, (x, y, seconds))) or seconds < 0:
            raise ValueError("damaged gaze: a fixation not finite, or of negative duration")
        if self.width is None or self.height is None:
            return Look(x, y, seconds)
        width, height = (number(row, column, "gaze") for column in (self.width, self.height))
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise ValueError("damaged gaze: a size of the picture that is none")
        return Look(x, y, seconds, (width, height))


def number(row: Row, column: str, what: str) -> float:
    """The number in a cell. Raises ValueError."""
    try:
        return float(row[column])
    except ValueError:
        raise ValueError(f"damaged {what}: no number in column '{column}'") from None
