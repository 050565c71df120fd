import logging
import zipfile

import pytest

from lightning_rad.sharding.sources.tables import tables_from
from tests.sharding.phantoms import write_csv

MAIN = [{"id": "1", "who": "A", "kind": "x"}, {"id": "2", "who": "B", "kind": "y"}]


def rows_of(root, needed, **settings):
    rejected = []
    tables = tables_from({"tables": "main.csv"} | settings)
    return list(tables.rows(root, needed, rejected)), rejected


@pytest.fixture
def root(tmp_path):
    write_csv(tmp_path / "main.csv", MAIN)
    return tmp_path


def test_a_join_puts_cells_to_rows_by_key_and_blanks_where_there_is_none(root):
    write_csv(
        root / "more.csv", [{"n": "2", "p": "B", "set": "te"}, {"n": "2", "p": "C", "set": ""}]
    )
    join = {"csv": "more.csv", "by": {"id": "n", "who": "p"}, "columns": {"split": "set"}}
    rows, rejected = rows_of(root, ["id", "split"], joins=[join])
    assert [(row["id"], row["split"]) for _, row in rows] == [("1", ""), ("2", "te")]
    assert [where for where, _ in rows] == ["main.csv line 2", "main.csv line 3"]
    assert rejected == []


def test_a_key_on_two_lines_that_differ_is_refused_unless_the_first_is_to_count(root):
    join = {"csv": "more.csv", "by": "id", "columns": ["set"]}
    write_csv(root / "more.csv", [{"id": "1", "set": "a"}, {"id": "1", "set": "a"}])
    assert [row["set"] for _, row in rows_of(root, ["set"], joins=[join])[0]] == ["a", ""]
    write_csv(root / "more.csv", [{"id": "1", "set": "a"}, {"id": "1", "set": "b"}])
    with pytest.raises(ValueError, match=r"more\.csv: .* line 3 has the same id as a line before"):
        rows_of(root, ["set"], joins=[join])
    first = rows_of(root, ["set"], joins=[join | {"twice": "first"}])[0]
    assert [row["set"] for _, row in first] == ["a", ""]


def test_an_extracted_column_can_be_a_key_and_come_from_a_joined_one(root):
    write_csv(root / "more.csv", [{"letter": "A", "path": "train/a"}, {"letter": "B", "path": "?"}])
    rows, rejected = rows_of(
        root,
        ["split", "id"],
        extract={
            "split": {"column": "path", "pattern": "^(train|valid)/"},
            "initial": {"column": "who", "pattern": "^(.)"},
        },
        joins=[{"csv": "more.csv", "by": {"initial": "letter"}, "columns": ["path"]}],
    )
    assert [(row["id"], row["split"]) for _, row in rows] == [("1", "train")]
    reason = "unexpected cell: in column 'path', no split in it"
    assert [(r.where, r.reason) for r in rejected] == [("main.csv line 3", reason)]


def test_rows_that_are_left_out_are_counted_in_the_log_and_are_no_rejections(root, caplog):
    with caplog.at_level(logging.WARNING):
        rows, rejected = rows_of(root, ["id"], only={"kind": ["y"]})
    assert ([row["id"] for _, row in rows], rejected) == (["2"], [])
    assert caplog.messages == ["1 rows are left out: their 'kind' is none of y"]


def test_several_tables_are_read_one_after_the_other_also_without_headers(tmp_path):
    (tmp_path / "a.csv").write_text("1,x\n2,y\n")
    (tmp_path / "b_2020.csv").write_bytes(b"3,z\r\n")
    given = {"tables": ["a.csv", "b_*.csv"], "header": ["id", "kind"]}
    rows = list(tables_from(given).rows(tmp_path, ["kind"], []))
    places = ["a.csv line 1", "a.csv line 2", "b_2020.csv line 1"]
    assert rows == list(zip(places, [{"kind": k} for k in "xyz"], strict=True))


def test_files_are_rows_with_a_number_for_a_place_and_no_name_in_it(tmp_path):
    for name in ("c/Smith_2.png", "c/Jones_1.png", "c/other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = list(tables_from({"files": "c/*.png"}).rows(tmp_path, ["file"], []))
    assert [row["file"] for _, row in rows] == ["c/Jones_1.png", "c/Smith_2.png"]
    assert [where for where, _ in rows] == [f"file {n} of c/*.png, sorted" for n in (1, 2)]
    with pytest.raises(ValueError, match=r"no file matches 'd/\*\.png' \(csv\.files\)"):
        list(tables_from({"files": "d/*.png"}).rows(tmp_path, ["file"], []))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tables": "none.csv"}, r"none\.csv: No such file"),
        (
            {"tables": "m*.csv", "joins": []},
            r"m\*\.csv: one file is expected .* found main\.csv, mo",
        ),
        ({"tables": "z*.csv"}, r"one file is expected to match, found none"),
        ({"tables": "packed.zip"}, r"packed\.zip: a zip archive; unpack it first"),
        ({"files": "*.png"}, r"give either 'tables' or 'files'"),
        ({"tables": (), "files": "*.png"}, r"csv\.files: no column 'id'; rows of files have"),
        ({"extract": {"a": {"column": "who", "pattern": "x"}}}, r"must have one group, it has 0"),
        ({"extract": {"a": {"column": "who", "pattern": "(x"}}}, r"extract\.a: pattern '\(x': "),
        (
            {"extract": {"a": {"column": "a", "pattern": "(x)"}}},
            r"extract\.a: the new column needs",
        ),
        ({"joins": [{"csv": "m", "by": "id"}]}, r"joins\[0\]: missing key 'columns'"),
        (
            {"joins": [{"csv": "main.csv", "by": "no", "columns": ["who"]}]},
            r"no column 'no'; there",
        ),
        ({"joining": []}, r"unknown key 'joining'; accepted are tables, files, header, joins"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_file_or_key(root, settings, said):
    write_csv(root / "more.csv", MAIN)
    with zipfile.ZipFile(root / "packed.zip", "w") as archive:
        archive.writestr("main.csv", "id\n1\n")
    with pytest.raises(ValueError, match=said) as error:
        rows_of(root, ["id"], **settings)
    assert "\n" not in str(error.value)
