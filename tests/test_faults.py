"""The table of docs/reliability.md is what tests that exist have written."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import faults

ROOT = Path(__file__).parents[1]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "reliability.md"
    path.write_text(f"before\n{faults.BEGIN}\nold\n{faults.END}\nafter\n")
    return path


def row(fault: str, test: str = "tests/a.py::test_a", lost: str = "0") -> faults.Fault:
    return faults.Fault(fault, "kill -9", "ends | at once", lost, "bits", test)


def test_the_table_stands_between_its_marks(document: Path) -> None:
    faults.write([row("one"), row("two")], document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{faults.END}\nafter\n")
    assert "old" not in text
    assert [cells[0] for cells in faults.in_document(document)] == ["one", "two"]
    assert [len(cells) for cells in faults.in_document(document)] == [6, 6]


def test_a_later_row_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    rows = [row("one", lost="3"), row("two"), row("one", lost="1")]
    ledger.write_text("".join(json.dumps(asdict(r)) + "\n" for r in rows))
    assert [(r.fault, r.lost) for r in faults.read(ledger)] == [("one", "1"), ("two", "0")]


def test_a_document_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("nothing")
    with pytest.raises(ValueError, match=re.escape("x.md")):
        faults.write([row("one")], tmp_path / "x.md")


def test_the_document_shows_at_least_twenty_faults_of_tests_that_exist() -> None:
    rows = faults.in_document()
    assert len({cells[0] for cells in rows}) >= 20
    for *_, test in rows:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), test
