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
    assert read_rows(path, ["a", "b"]) == (EXPECTED, [])


def test_windows_line_ends_and_tabs_are_understood(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"a\tb\r\n1\t2,3\r\n")
    assert read_rows(tmp_path / "t.tsv", ["b"]) == ([(2, {"a": "1", "b": "2,3"})], [])


def test_rows_of_another_length_are_told_by_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n1\n3,4\n")
    rows, uneven = read_rows(tmp_path / "t.csv", [])
    assert ([line for line, _ in rows], uneven) == ([2, 5], [3, 4])


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
        read_rows(tmp_path / "t.csv", ["a"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"none\.csv: No such file"):
        read_rows(tmp_path / "none.csv", [])
