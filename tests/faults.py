"""What the tests of faults saw, as the rows of docs/reliability.md.

A test that injects a fault ends with `fault(...)`, a fixture of tests/conftest.py. With
FAULT_LEDGER=FILE in the environment the rows are kept; `python -m tests.faults FILE` puts them into
the document, which `make reliability` does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: written by make reliability -->", "<!-- end of faults -->"
HEAD = ("fault", "how injected", "what happened", "steps lost", "identical", "test")


@dataclass(frozen=True)
class Fault:
    """One row. lost: steps done again. identical: to the undisturbed run, and how nearly."""

    fault: str
    injected: str
    outcome: str
    lost: str
    identical: str
    test: str

    def row(self) -> str:
        """The row in Markdown."""
        return "| " + " | ".join(str(v).replace("|", "/") for v in asdict(self).values()) + " |"


def read(ledger: Path) -> list[Fault]:
    """The rows of a ledger: of a test and fault the last."""
    rows = [Fault(**json.loads(line)) for line in ledger.read_text().splitlines()]
    last = {(row.test, row.fault): row for row in rows}
    return [last[key] for key in sorted(last)]


def in_document(document: Path = DOCUMENT) -> list[list[str]]:
    """The cells of each row that the document shows."""
    table = document.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def write(faults: list[Fault], document: Path = DOCUMENT) -> None:
    """Put the table between its marks."""
    before, _, rest = document.read_text().partition(BEGIN)
    if END not in rest:
        raise ValueError(f"{document}: no '{BEGIN}' and '{END}'")
    head = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    table = "\n".join([BEGIN, *head, *(fault.row() for fault in faults), END])
    document.write_text(before + table + rest.partition(END)[2])


if __name__ == "__main__":
    write(read(Path(sys.argv[1])))
