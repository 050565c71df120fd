import pytest

from lightning_rad.sharding.sources.findings import FindingColumns, FindingList


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


def test_words_of_one_kind_are_one_finding_and_others_may_be_any():
    words = {"Effusion": ["effusion", "hydropneumothorax"], "Mass": "mass"}
    reader = FindingList("f", words, separator=",", trim="[]' ", nothing=["normal"], others="any")
    cells = {
        "['hydropneumothorax', 'goiter']": (1, 0),
        "['goiter']": (0, 0),
        "['normal']": (0, 0),
        "[]": (None, None),
        "": (None, None),
    }
    for cell, (effusion, mass) in cells.items():
        assert reader.read({"f": cell}) == {"Effusion": effusion, "Mass": mass}, cell
    with pytest.raises(ValueError, match="'others' is 'all'; accepted are"):
        FindingList("f", ["Mass"], others="all")


def test_an_unsure_word_leaves_unknown_what_is_not_named():
    reader = FindingList("f", ["Mass", "Edema"], unsure=["unchanged"])
    assert reader.read({"f": "unchanged|Mass"}) == {"Mass": 1, "Edema": None}
    assert reader.read({"f": "unchanged"}) == {"Mass": None, "Edema": None}
    assert reader.read({"f": "unchanged|No Finding"}) == {"Mass": 0, "Edema": 0}


def test_nothing_found_makes_unknown_findings_absent_but_for_those_it_says_nothing_of():
    reader = FindingColumns(["Mass", "Device"], nothing_column="none", nothing_spares=["Device"])
    assert reader.read({"Mass": "", "Device": "", "none": "1.0"}) == {"Mass": 0, "Device": None}
    assert reader.read({"Mass": "-1", "Device": "1", "none": "1.0"}) == {"Mass": 0, "Device": 1}
    assert reader.read({"Mass": "", "Device": "", "none": ""}) == {"Mass": None, "Device": None}
    with pytest.raises(ValueError, match="contradicting labels: nothing found, and 'Mass'"):
        reader.read({"Mass": "1", "Device": "", "none": "1.0"})
    with pytest.raises(ValueError, match="'nothing_spares' names 'Divice', which is no finding"):
        FindingColumns(["Mass"], nothing_column="none", nothing_spares=["Divice"])
