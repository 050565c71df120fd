import pytest

from lightning_rad.sharding.sources.columns import FindingColumns, FindingList


@pytest.mark.parametrize(
    ("cell", "flag", "mass", "edema"),
    [
        ("Mass", "0", 1, 0),
        ("Mass| Edema ", "0", 1, 1),
        ("", "0", None, None),
        ("", "1", 0, 0),
        ("No Finding", "0", 0, 0),
        ("Scar", "0", 0, 0),
        ("Scar|Edema", "0", 0, 1),
    ],
)
def test_a_list_of_findings_tells_present_absent_and_unknown_apart(cell, flag, mass, edema):
    reader = FindingList("f", ["Mass", "Edema"], nothing_column="none", others=["Scar"])
    assert reader.read({"f": cell, "none": flag}) == {"Mass": mass, "Edema": edema}


def test_what_blanks_and_unlisted_findings_mean_is_the_recipes_choice():
    blank = FindingList("f", ["Mass"], blank="absent")
    assert blank.read({"f": ""}) == {"Mass": 0}
    open_world = FindingList("f", ["Mass", "Edema"], unlisted="unknown", separator=";")
    assert open_world.read({"f": "Mass"}) == {"Mass": 1, "Edema": None}


@pytest.mark.parametrize(
    ("cell", "value"), [("1", 1), ("1.0", 1), ("0", 0), ("0.0", 0), ("", None), ("-1.0", None)]
)
def test_columns_of_findings_read_the_usual_spellings(cell, value):
    assert FindingColumns(["Mass"]).read({"Mass": cell}) == {"Mass": value}


def test_uncertain_can_be_read_as_present_and_numbers_of_yaml_match_cells():
    reader = FindingColumns({"Mass": "m"}, present=[1, -1], absent=[0], unknown=[""])
    assert [reader.read({"m": c})["Mass"] for c in ("1", "-1", "0", "")] == [1, 1, 0, None]


@pytest.mark.parametrize("cell", ["2", "yes", "0.5", "nan"])
def test_a_value_that_the_recipe_does_not_know_is_out_of_range(cell):
    with pytest.raises(ValueError, match=r"^label out of range: in column 'm'$"):
        FindingColumns({"Mass": "m"}).read({"m": cell})
