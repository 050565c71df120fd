"""Every feature against two packages; `test_literal.py` holds them against the definitions."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from lightning_rad.modalities.radiomics import FEATURES, radiomics
from tests.modalities.radiomics.cases import regions
from tests.modalities.radiomics.references import FLASH, MIRP, flash, mirp

CASES = regions()
RELATIVE = 1e-4
NEAR_0 = 1e-6
# what a package leaves out of a mean or a count, otherwise than ours: package, case -> family
OTHERWISE = {
    # IBSI keeps directions along which no two pixels lie; pyradiomics and flash leave them out
    ("mirp", "one row"): "glrlm",
    ("mirp", "diagonal"): "glrlm",
    # IBSI does not count a pixel without neighbours, pyradiomics does: `holes` has some
    ("mirp", "holes"): "ngtdm",
    ("flash", "holes"): "ngtdm",
}


@functools.cache
def ours() -> dict[str, dict[str, float]]:
    """All cases in one batch, each in the corner of a tile of the largest size."""
    side = max(greys.shape[0] for greys, _ in CASES.values())
    greys = torch.full((len(CASES), side, side), 77, dtype=torch.uint8)
    mask = torch.zeros(greys.shape, dtype=torch.bool)
    for row, (grey, inside) in enumerate(CASES.values()):
        greys[row, : len(grey), : len(grey)] = torch.from_numpy(grey)
        mask[row, : len(grey), : len(grey)] = torch.from_numpy(inside)
    found = radiomics(greys, mask).tolist()
    return {
        name: dict(zip(FEATURES, row, strict=True)) for name, row in zip(CASES, found, strict=True)
    }


def check(case: str, theirs: dict[str, float], package: str) -> None:
    """All features alike but those of a family that is stated to be otherwise, which is so."""
    otherwise = OTHERWISE.get((package, case))
    unlike = {
        name: (ours()[case][name], value)
        for name, value in theirs.items()
        if not math.isclose(ours()[case][name], value, rel_tol=RELATIVE, abs_tol=RELATIVE * NEAR_0)
    }
    assert {name.split(".")[0] for name in unlike} == ({otherwise} if otherwise else set()), unlike


@pytest.mark.parametrize("case", CASES)
def test_every_feature_is_that_of_flash_radiomics(case):
    theirs = flash(*CASES[case])
    assert set(theirs) == set(FEATURES)
    check(case, theirs, "flash")


@pytest.mark.parametrize("case", CASES)
def test_every_feature_that_mirp_has_is_that_of_mirp(case):
    theirs = mirp(*CASES[case])
    assert len(theirs) == 102 - 9 - 1
    check(case, theirs, "mirp")


def test_every_feature_rests_on_a_package():
    assert set(FLASH) == set(MIRP) == set(FEATURES)
    assert all(FLASH.values())
    assert {name for name in FEATURES if MIRP[name] is None and not name.startswith("shape.")} == {
        "glcm.mcc"
    }
