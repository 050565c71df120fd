"""One line of what the doctor says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what it is, and what to do where that is not good."""

    level: Level
    what: str
    value: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.level:<7}  {self.what}: {self.value}{remedy}"


def graded(what: str, value: str, *, failed: str = "", warning: str = "") -> Finding:
    """A finding by the remedies that are due: failed before warning, neither is ok."""
    if failed:
        return Finding("failed", what, value, failed)
    return Finding("warning" if warning else "ok", what, value, warning)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of some findings; ok of none."""
    levels: tuple[Level, ...] = get_args(Level)
    return max((f.level for f in findings), key=levels.index, default="ok")


def size(count: float) -> str:
    """Bytes in the largest binary unit that they fill."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
