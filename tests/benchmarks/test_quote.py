"""The README's numbers are those of a committed results file."""

from __future__ import annotations

import re

from benchmarks.machine import ROOT
from benchmarks.quote import README, marked, quoted


def test_the_readme_quotes_its_results_file() -> None:
    _, quotation, _ = marked(README.read_text())
    mark, _, body = quotation.partition("\n")
    name = re.fullmatch(r"<!-- results: (\S+) -->", mark)
    assert name is not None
    assert body == ("" if name[1] == "none" else quoted(ROOT / name[1]))
