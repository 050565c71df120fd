import pytest

from lightning_rad.sharding.sources.patterns import Pattern

ROW = {"subject id": "10000032", "study": "50414267", "blank": ""}


def test_a_pattern_puts_cells_and_their_beginnings_together():
    pattern = Pattern("files/p{subject id:.2}/p{subject id}/s{study}.jpg")
    assert pattern.fill(ROW) == "files/p10/p10000032/s50414267.jpg"
    assert pattern.columns == {"subject id", "study"}


def test_a_text_without_braces_is_a_column_whatever_it_looks_like():
    assert Pattern("OriginalImage[Width").columns == {"OriginalImage[Width"}
    assert Pattern("subject id").fill(ROW) == "10000032"


def test_a_blank_cell_leaves_a_gap_and_no_whole():
    assert Pattern("{study} {blank}").fill(ROW) == "50414267"
    assert Pattern("{study}/{blank}").whole(ROW) == ""
    assert Pattern("{study}").whole(ROW) == "50414267"


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{a:.x}}", "", "{a:}{"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(ValueError, match="pattern"):
        Pattern(text)
