"""Every feature against a plain loop of its definition (`literal.py`)."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.modalities.radiomics import FEATURES, radiomics
from tests.modalities.radiomics.cases import regions
from tests.modalities.radiomics.literal import literal

CASES = regions()
SIDE = 7


def ours(greys: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    found = radiomics(torch.from_numpy(greys)[None], torch.from_numpy(mask)[None])[0]
    return dict(zip(FEATURES, found.tolist(), strict=True))


def check(greys: np.ndarray, mask: np.ndarray) -> None:
    found, wanted = ours(greys, mask), literal(greys, mask)
    assert set(found) == set(wanted)
    unlike = {
        name: (value, wanted[name])
        for name, value in found.items()
        if not math.isclose(value, wanted[name], rel_tol=1e-7, abs_tol=2e-7)
        and not (math.isnan(value) and math.isnan(wanted[name]))
    }
    assert unlike == {}
    assert not any(math.isinf(value) for value in found.values())


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_a_plain_loop(case):
    greys, mask = CASES[case]
    check(greys[:24, :24], mask[:24, :24])


@settings(max_examples=60, deadline=None)
@given(
    greys=arrays.arrays(
        np.uint8,
        (SIDE, SIDE),
        elements=st.sampled_from([0, 24, 25, 26, 49, 50, 130, 249, 250, 255]),
    ),
    mask=arrays.arrays(bool, (SIDE, SIDE)).filter(np.any),
)
def test_features_of_any_small_region_are_those_of_a_plain_loop(greys, mask):
    check(greys, mask)


@pytest.mark.parametrize("form", ["spiral", "comb", "checkers", "frame", "diagonals"])
def test_zones_of_winding_forms_are_those_of_a_plain_loop(form):
    y, x = np.mgrid[:21, :21]
    spiral = np.zeros((21, 21), dtype=bool)
    place, step = np.array([0, 0]), np.array([0, 1])
    for length in [20, *(n for n in range(20, 0, -2) for _ in (0, 1))]:
        for _ in range(length):
            spiral[tuple(place)] = True
            place = place + step
        step = np.array([step[1], -step[0]])
    forms = {
        "spiral": spiral,
        "comb": (x % 2 == 0) | (y == 20),
        "checkers": (x + y) % 2 == 0,
        "frame": (np.minimum(np.minimum(x, y), np.minimum(20 - x, 20 - y)) % 2) == 0,
        "diagonals": (x + 2 * y) % 5 < 2,
    }
    greys = np.where(forms[form], np.uint8(200), np.uint8(20))
    check(greys, np.ones_like(forms[form]))
    check(greys, forms[form])
