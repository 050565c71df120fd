import gzip

import pytest

from lightning_rad.sharding.sources.rows import read_rows

TEXT = 'a,b\n1,"x\ny"\n\n2, z \n'
EXPECTED = [(3, {"a": "1", "b": "x\ny"}), (5, {"a": "2", "b": "z"})]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packed", [False, True])
def test_marks_compression_blank_lines_and_quotes_are_understood(tmp_path, mark, packed):
    data = (mark + TEXT).encode()
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(read_rows(path, ["a", "b"])) == EXPECTED


def test_windows_line_ends_and_tabs_are_understood(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"a\tb\r\n1\t2,3\r\n")
    assert list(read_rows(tmp_path / "t.tsv", ["b"])) == [(2, {"b": "2,3"})]


def test_rows_of_another_length_are_told_by_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n1\n3,4\n")
    rows = list(read_rows(tmp_path / "t.csv", ["a"]))
    assert [line for line, row in rows if row] == [2, 5]
    assert [line for line, row in rows if row is None] == [3, 4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the table is empty"),
        (b"a,b\n", "the table has a header but no rows"),
        (b"x,y\n1,2\n", "no column 'a'; there are x, y"),
        (b"a,a\n1,2\n", "column 'a' occurs twice"),
        (b"a\n\xff\xfe\n", "not a UTF-8 table"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line_naming_the_file(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.csv: ") as error:
        list(read_rows(tmp_path / "t.csv", ["a"]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"none\.csv: No such file"):
        list(read_rows(tmp_path / "none.csv", []))


def test_unnamed_columns_at_the_end_count_as_little_as_their_empty_cells(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,,\n1,2\n3,4,,\n5,6,7\n")
    rows = list(read_rows(tmp_path / "t.csv", ["b"]))
    assert rows == [(2, {"b": "2"}), (3, {"b": "4"}), (4, None)]


def test_lines_of_json_are_rows_and_null_is_an_empty_cell(tmp_path):
    lines = ['{"a": "x", "b": 1.0}', "", '{"b": null, "a": " y "}', "{", "[1]"]
    (tmp_path / "t.json").write_text("\n".join(lines))
    rows = list(read_rows(tmp_path / "t.json", ["a", "b"]))
    assert rows == [(1, {"a": "x", "b": "1.0"}), (3, {"a": "y", "b": ""}), (4, None), (5, None)]
    (tmp_path / "t.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"t\.json: line 1: no JSON object"):
        list(read_rows(tmp_path / "t.json", ["a"]))


@pytest.mark.parametrize(("asked", "there"), [("t.csv.gz", "t.csv"), ("t.csv", "t.csv.gz")])
def test_a_table_is_found_packed_or_not(tmp_path, asked, there):
    data = b"a\n1\n"
    (tmp_path / there).write_bytes(gzip.compress(data) if there.endswith("gz") else data)
    assert list(read_rows(tmp_path / asked, ["a"])) == [(2, {"a": "1"})]


def test_a_header_can_be_given_and_then_the_first_line_is_a_row(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"1,2\r\n")
    assert list(read_rows(tmp_path / "t.csv", ["y"], header=["x", "y"])) == [(1, {"y": "2"})]
