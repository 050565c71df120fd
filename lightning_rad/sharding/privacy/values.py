"""The identifiers of a source: of those that know them, and of any other by its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from lightning_rad.sharding.privacy.identifier import Identifier, in_path
from lightning_rad.sharding.source import Source


@runtime_checkable
class KnowsIdentifiers(Protocol):
    """A source that says more than its plan, of rows and files that were refused too."""

    def identifiers(self, columns: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
        """(where, kind, value, owner) of each value; see `Identifier`. A path is of kind "path".

        columns: further columns with identifiers. Raises ValueError for one that is not there.
        """
        ...


def identifiers_of(source: Source, columns: Sequence[str] = ()) -> Iterator[Identifier]:
    """Every value of a source that identifies somebody."""
    if isinstance(source, KnowsIdentifiers):
        given = source.identifiers(columns)
    elif columns:
        raise ValueError(f"columns: {type(source).__name__} has no table")
    else:
        given = _planned(source)
    for where, kind, value, owner in given:
        if kind == "path":
            yield from (Identifier(where, k, v, owner) for v, k in in_path(value).items())
        elif value:
            yield Identifier(where, kind, value, owner)


def _planned(source: Source) -> Iterator[tuple[str, str, str, str]]:
    for number, study in enumerate(source.plan()[0], 1):
        where = f"study {number} of the source"
        for image in study.images:
            where = getattr(image, "where", where)
            if isinstance(file := getattr(image, "file", None), str):
                yield where, "path", file, study.patient
        yield where, "patient", study.patient, study.patient
        yield where, "study", study.study, study.patient
