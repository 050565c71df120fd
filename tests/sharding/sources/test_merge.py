"""Several rows of an image become one: equal ones, and those of readers who vote."""

import pytest

from lightning_rad.sharding.sources.tables import tables_from
from tests.sharding.phantoms import write_csv


def merged(root, rows, needed, **merge):
    write_csv(root / "t.csv", rows)
    rejected = []
    tables = tables_from({"tables": "t.csv", "merge": {"by": "id"} | merge})
    found = list(tables.rows(root, needed, rejected))
    return found, [(r.where, r.reason) for r in rejected]


def test_rows_of_an_image_are_one_at_the_place_of_the_first(tmp_path):
    rows = [
        {"id": i, "kind": k, "box": b} for i, k, b in (("a", "x", 1), ("b", "", 2), ("a", "x", 3))
    ]
    found, rejected = merged(tmp_path, rows, ["id", "kind"])
    assert found == [
        ("t.csv line 2", {"id": "a", "kind": "x"}), ("t.csv line 3", {"id": "b", "kind": ""})
    ]  # fmt: skip
    assert rejected == []


def test_a_row_that_contradicts_the_first_is_refused_without_its_cell(tmp_path):
    rows = [{"id": "a", "kind": "x"}, {"id": "a", "kind": "Smith"}, {"id": "a", "kind": "x"}]
    found, rejected = merged(tmp_path, rows, ["id", "kind"])
    assert [row["kind"] for _, row in found] == ["x"]
    assert rejected == [("t.csv line 3", "contradicting rows: another 'kind' than t.csv line 2")]


@pytest.mark.parametrize(
    ("cells", "minority", "said"),
    [
        (["1", "1.0", "0"], "unknown", "1"),
        (["1", "0", "0"], "unknown", "-1"),
        (["1", "0", "0"], "absent", "0"),
        (["1", "0", "0"], "present", "1"),
        (["1", "0"], "unknown", "-1"),  # half is no majority
        (["0", "", "0.0"], "present", "0"),
        (["1"], "unknown", "1"),
        (["1", "1", "maybe"], "unknown", "maybe"),  # for the labels to refuse
    ],
)
def test_readers_vote_on_each_finding(tmp_path, cells, minority, said):
    rows = [{"id": "a", "f": cell, "reader": str(i)} for i, cell in enumerate(cells)]
    found, rejected = merged(tmp_path, rows, ["id", "f"], votes=["f"], minority=minority)
    assert ([row["f"] for _, row in found], rejected) == ([said], [])


def test_the_key_need_not_be_a_column_that_is_read(tmp_path):
    rows = [{"id": "a", "n": "1"}, {"id": "a", "n": "1"}, {"id": "b", "n": "1"}]
    found, _ = merged(tmp_path, rows, ["n"])
    assert [row for _, row in found] == [{"n": "1"}, {"n": "1"}]


def test_an_unknown_rule_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"csv\.merge: 'minority' is 'some'; accepted are"):
        tables_from({"tables": "t.csv", "merge": {"by": "id", "minority": "some"}})
