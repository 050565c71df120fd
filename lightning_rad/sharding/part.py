"""One task's share of a build that several share: every N-th shard of the plan."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightning_rad.sharding.plan import Job


@dataclass(frozen=True, slots=True)
class Part:
    """Task `number` of `of`, counted from 1."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"--part {self}: tasks are counted from 1 to {self.of}, as in 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """Of its folder of unfinished files."""
        return f"part-{self.number}-of-{self.of}"

    def share(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        """Its jobs; those of all parts together are all jobs, each once."""
        return jobs[self.number - 1 :: self.of]


def parse_part(text: str) -> Part:
    """A part by the words of the command line, `2/8`. Raises ValueError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise ValueError(f"--part {text}: accepted is I/N, task I of N, as in 2/8")
    return Part(int(found[1]), int(found[2]))
