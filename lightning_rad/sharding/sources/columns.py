"""Which columns say what of an image: who, which study, view, report, official split.

All values are strings. What an error says ends in a file beside the shards, and a cell may hold
anything (a shifted row a name), so errors name the column and never repeat the cell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_rad.schema import SPLITS
from lightning_rad.sharding.sources.findings import texts
from lightning_rad.sharding.sources.patterns import Pattern
from lightning_rad.sharding.sources.rows import Row

INVERTED: str = "MONOCHROME1"
"""The photometric interpretation whose smallest values are bright (DICOM PS3.3 C.7.6.3.1.2)."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns, or patterns of them (see `patterns.Pattern`).

    study: one or several that together tell studies of a patient apart. report: the text itself;
    report_file: where it lies, below the root; of several patterns the first that is a file.
    bits: significant bits of 16-bit images. photometric: what DICOM calls so; the pixels of an
    image that says MONOCHROME1 are inverted. part: which of `images.Images.parts` of its file an
    image is.
    """

    image: str
    patient: str
    study: str | Sequence[str] | None = None
    view: str | None = None
    report: str | None = None
    report_file: str | Sequence[str] | None = None
    bits: str | None = None
    photometric: str | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        for text in self._texts():
            Pattern(text)

    def __getitem__(self, key: str) -> tuple[Pattern, ...]:
        """The patterns of a key, none where it is not given."""
        given = getattr(self, key)
        texts = [given] if isinstance(given, str) else given or ()
        return tuple(Pattern(text) for text in texts)

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        return {column for text in self._texts() for column in Pattern(text).columns}

    def _texts(self) -> list[str]:
        several = (self.study, self.report_file)
        who = (self.image, self.part, self.patient)
        single = (*who, self.view, self.report, self.bits, self.photometric)
        lists = ([given] if isinstance(given, str) else given or () for given in several)
        return [text for text in single if text is not None] + [t for few in lists for t in few]


@dataclass(frozen=True, slots=True)
class OfficialSplits:
    """Splits that the makers of a set gave: by a column, or by lists of patients or images.

    values: split -> cells of `column`. by_hash: cells whose patients are split by hash. lists:
    split -> file with one name a line: of a patient, of an image file or, where `of` is a column,
    what stands there; who is in no list is split by hash.
    """

    column: str | None = None
    values: Mapping[str, Collection[str]] = field(default_factory=dict)
    by_hash: Collection[str] = ()
    lists: Mapping[str, str] = field(default_factory=dict)
    of: str = "patient"

    def __post_init__(self) -> None:
        if (self.column is None) == (not self.lists):
            raise ValueError("give either 'column' with 'values', or 'lists'")
        for split in (*self.values, *self.lists):
            if split not in SPLITS:
                raise ValueError(f"unknown split '{split}'; accepted are {', '.join(SPLITS)}")

    @property
    def needed(self) -> set[str]:
        """Every column named."""
        if self.column is not None:
            return {self.column}
        return {self.of} - {"patient", "image"}

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
            except UnicodeDecodeError:
                raise ValueError(f"splits.lists: {root / file}: not a UTF-8 list") from None
            for name in names:
                if found.setdefault(name, split) != split:
                    raise ValueError(f"splits.lists: a name of {file} is in another list too")
        return found

    def look_up(
        self, table: Mapping[str, str | None], row: Row, patient: str, image: str
    ) -> str | None:
        """The split of a row, None for one that is placed by hash. Raises ValueError."""
        if self.column is None:
            names = {"patient": patient, "image": Path(image).name}
            return table.get(names[self.of] if self.of in names else row[self.of])
        cell = row[self.column]
        if cell not in table:
            raise ValueError(f"unknown split: in column '{self.column}'")
        return table[cell]
