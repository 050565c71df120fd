"""Puts the targets of a results file, and what it ran on, between the marks of the README.

python -m benchmarks.quote benchmarks/results/contrastive_losses_<machine>_<date>.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.report import Table

README = ROOT / "README.md"
MARKS = "<!-- results: {} -->\n", "<!-- end of results -->\n"


def quoted(results: Path) -> str:
    """One sentence on the machine and the table, as they stand in the results."""
    content = json.loads(results.read_text())
    told = content["machine"]
    lines = Table(**content["tables"][0]).markdown().splitlines()[2:]
    machine = f"{told['date']}, {told['processor']}, {told['threads']} threads, {told['flags']};"
    return f"{machine} {told['packages']}.\n\n" + "\n".join(lines) + "\n"


def marked(text: str) -> tuple[str, str, str]:
    """What comes before the quotation, the quotation, and what comes after it."""
    opening, closing = MARKS[0].split("{}")[0], MARKS[1]
    start, end = text.index(opening), text.index(closing)
    return text[:start], text[start:end], text[end:]


def main() -> None:
    results = Path(sys.argv[1]).resolve()
    before, _, after = marked(README.read_text())
    mark = MARKS[0].format(results.relative_to(ROOT))
    README.write_text(f"{before}{mark}{quoted(results)}{after}")


if __name__ == "__main__":
    main()
