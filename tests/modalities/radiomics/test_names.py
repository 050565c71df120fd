"""The names of features."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lightning_rad.modalities.radiomics import FEATURES, PYRADIOMICS
from tests.modalities.radiomics.references import table

GUIDE = Path(__file__).parents[3] / "docs/radiomics.md"

WANTED = {
    "first_order": 18,
    "shape": 9,
    "glcm": 24,
    "glrlm": 16,
    "glszm": 16,
    "gldm": 14,
    "ngtdm": 5,
}


def test_there_are_102_in_families_that_follow_one_another():
    families = [name.split(".")[0] for name in FEATURES]
    assert len(set(FEATURES)) == 102
    assert Counter(families) == WANTED
    assert list(dict.fromkeys(families)) == list(WANTED)


def test_within_a_family_they_follow_each_other_as_in_the_results_of_pyradiomics():
    for family in WANTED:
        theirs = [v.split("_")[1] for k, v in PYRADIOMICS.items() if k.startswith(f"{family}.")]
        # it sorts its methods, whose names end in FeatureValue
        assert theirs == sorted(theirs, key=lambda name: f"{name}FeatureValue")


def test_a_few_have_the_names_that_pyradiomics_gives_them():
    assert PYRADIOMICS["first_order.10_percentile"] == "firstorder_10Percentile"
    assert PYRADIOMICS["shape.perimeter_surface_ratio"] == "shape2D_PerimeterSurfaceRatio"
    assert PYRADIOMICS["glcm.mcc"] == "glcm_MCC"
    assert PYRADIOMICS["glcm.idmn"] == "glcm_Idmn"


def test_the_guide_names_what_the_tests_compare():
    assert "\n".join(table()) in GUIDE.read_text()
