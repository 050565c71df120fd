"""Tables whose columns are called otherwise, lack some, or are written in other ways."""

import pytest

from lightning_rad.sharding.sources.columns import OfficialSplits
from lightning_rad.sharding.sources.rows import read_rows
from lightning_rad.sharding.sources.tables import tables_from
from tests.sharding.phantoms import write_csv


def rows_of(root, needed, **settings):
    rejected = []
    found = [row for _, row in tables_from(settings).rows(root, needed, rejected)]
    assert rejected == []
    return found


def test_tables_with_other_names_and_missing_columns_are_read_as_one(tmp_path):
    write_csv(tmp_path / "v0.csv", [{"id": "1", "V00G": "2"}])
    write_csv(tmp_path / "v1.csv", [{"id": "1", "V01G": "3", "visit": "later"}])
    tables = [
        {"csv": "v0.csv", "columns": {"grade": "V00G"}, "cells": {"visit": 0}},
        {"csv": "v1.csv", "columns": {"grade": "V01G"}},
    ]
    assert rows_of(tmp_path, ["id", "grade", "visit"], tables=tables) == [
        {"id": "1", "grade": "2", "visit": "0"},
        {"id": "1", "grade": "3", "visit": "later"},
    ]
    with pytest.raises(ValueError, match=r"v1\.csv: no column 'V00G'; there are id, V01G"):
        rows_of(tmp_path, ["grade"], tables=tables[1] | {"columns": {"grade": "V00G"}})
    with pytest.raises(ValueError, match=r"csv\.tables\[0\]: 'visit' is in 'columns' and in 'cel"):
        tables_from([{"csv": "v0.csv", "columns": {"visit": "v"}, "cells": {"visit": 0}}])
    with pytest.raises(ValueError, match=r"csv\.tables: unknown key 'cell'"):
        tables_from({"tables": {"csv": "v0.csv", "cell": {}}})


def test_a_join_may_be_of_several_tables_and_of_some_of_their_rows(tmp_path):
    write_csv(tmp_path / "main.csv", [{"id": "1", "visit": v} for v in ("0", "1", "2")])
    for visit in "01":
        rows = [{"id": "1", "kind": k, "place": f"{k}{visit}"} for k in ("hip", "knee")]
        write_csv(tmp_path / visit / "contents.csv", rows)
    join = {
        "csv": [{"csv": f"{v}/contents.csv", "cells": {"visit": v}} for v in "01"],
        "by": ["id", "visit"], "columns": ["place"], "only": {"kind": ["knee"]},
    }  # fmt: skip
    found = rows_of(tmp_path, ["place"], tables="main.csv", joins=[join])
    assert [row["place"] for row in found] == ["knee0", "knee1", ""]


def test_text_tables_are_apart_by_bars_and_json_may_be_an_array(tmp_path):
    (tmp_path / "t.txt").write_text("ID|SIDE\n1|1: Right, it seems\n2\n")
    assert list(read_rows(tmp_path / "t.txt", ["SIDE"])) == [
        (2, {"SIDE": "1: Right, it seems"}), (3, None)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text('\n[{"id": 1, "x": null},\n 5, {"id": "b", "x": ["y"]}]\n')
    assert list(read_rows(tmp_path / "a.json", ["id", "x"])) == [
        (1, {"id": "1", "x": ""}), (2, None), (3, {"id": "b", "x": "['y']"})
    ]  # fmt: skip
    for text, message in (("[]", "the table is empty"), ('[{"id": 1}', "no JSON array: ")):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ValueError, match=rf"b\.json: {message}"):
            list(read_rows(tmp_path / "b.json", ["id"]))


def test_official_lists_may_be_of_another_column(tmp_path):
    (tmp_path / "test.txt").write_text("00000003_000.png\n")
    splits = OfficialSplits(lists={"test": "test.txt"}, of="origin")
    table = splits.table(tmp_path)
    assert splits.needed == {"origin"}
    assert splits.look_up(table, {"origin": "00000003_000.png"}, "3", "x.dcm") == "test"
    assert splits.look_up(table, {"origin": "x.dcm"}, "3", "00000003_000.png") is None
