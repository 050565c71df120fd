"""Results as JSON and as markdown with the same numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Table:
    """Rows of cells by column; details, all that was measured, go into the JSON alone."""

    title: str
    columns: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)
    note: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""] + ([self.note, ""] if self.note else [])
        lines += [_row(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_row([row.get(column, "") for column in self.columns]) for row in self.rows]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Goal:
    """A number that should be reached: at least so much, or with `most` at most so much."""

    line: str
    wanted: float
    measured: float
    most: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.measured <= self.wanted if self.most else self.measured >= self.wanted

    def row(self) -> dict[str, str]:
        bound = "at most" if self.most else "at least"
        return {
            "line": self.line,
            "target": f"{bound} {self.wanted:g} {self.unit}",
            "measured": f"{self.measured:.2f} {self.unit}",
            "": "pass" if self.met else "MISSED",
        }


def goals_table(goals: list[Goal]) -> Table:
    columns = ["line", "target", "measured", ""]
    return Table("Targets", columns, [goal.row() for goal in goals])


def write(out: Path, name: str, title: str, facts: dict[str, str], tables: list[Table]) -> None:
    """OUT/name.json and OUT/name.md."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts, "tables": [asdict(table) for table in tables]}
    (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    told = [f"- {key}: {value}" for key, value in facts.items()]
    parts = [f"# {title}", "\n".join(told) + "\n", *(table.markdown() for table in tables)]
    (out / f"{name}.md").write_text("\n".join([parts[0], "", *parts[1:]]))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
