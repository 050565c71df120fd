"""What every source of studies offers to the builder: a cheap plan, and an expensive read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from lightning_rad.schema import Radiograph


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something of the source that does not reach a shard, and why.

    where: a row of a table or a study, as the user would look for it, without identifiers or file
    names, since the list lies beside the shards. reason: "kind" or "kind: detail"; kinds are
    counted in the manifest.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedStudy:
    """A study before its pixels are read, cheap to hold for a million studies.

    patient, study: identifiers as the source spells them (hashed before they reach a shard).
    images: one picklable record an image, meaningful to the source alone, whose repr says all that
    is in it: a build that is resumed knows by it that the source has not changed.
    split: an official split, or None to be placed by the hash of the patient.
    """

    patient: str
    study: str
    images: tuple[Any, ...]
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ReadStudy:
    """What reading a planned study gave: its usable images, its report, and what was refused."""

    images: tuple[Radiograph, ...]
    report: str | None = None
    rejected: tuple[Rejection, ...] = ()


class Source(Protocol):
    """Picklable and deterministic: the same plan and pixels on every call, in any process.

    A source whose code decides what it gives (pixels that it makes, texts that it joins) has an
    attribute `version`, a number that is raised with every change to that: shards made by an older
    one are then not taken for finished.
    """

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """Every study in a fixed order, without reading pixels, and the rows refused."""
        ...

    def read(self, study: PlannedStudy) -> ReadStudy:
        """The pixels and report of one study; a bad image becomes a Rejection, never an error."""
        ...
