"""Real fixations of radiologists on 1,250 chests: what is counted, and which way round they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lightning_rad.modalities.gaze import heat_map, inside

DATA = os.environ.get("RAD_SAMPLE_DATA")
FILE = Path(DATA or "") / "gaze" / "cxr_gaze_data.json"
SAMPLES_A_SECOND = 60.0
SIDE, SPREAD, PICTURE = 32, 0.03, (1024, 1024)
Floats = npt.NDArray[np.float64]

pytestmark = pytest.mark.skipif(
    not (DATA and FILE.is_file()), reason="needs real gaze: set RAD_SAMPLE_DATA to its folder"
)


@pytest.fixture(scope="module")
def readings() -> list[list[tuple[float, float, float]]]:
    """Of each image (x, y, seconds); at the source `gaze_x` runs down and `gaze_y` across."""
    records: list[dict[str, Any]] = json.loads(FILE.read_text())
    return [
        [
            (float(across), float(down), float(samples) / SAMPLES_A_SECOND)
            for down, across, samples in zip(r["gaze_x"], r["gaze_y"], r["time"], strict=True)
        ]
        for r in records
    ]


@pytest.fixture(scope="module")
def maps(readings: Any) -> Floats:
    found = [heat_map(r, PICTURE, side=SIDE, spread=SPREAD) for r in readings]
    assert all(m is not None for m in found)
    return np.array(found, np.float64)


def literal(reading: Any) -> Floats:
    """A sum of Gaussians taken at the centres of fine cells, one after the other, then pooled."""
    fine = 8 * SIDE
    place = (np.arange(fine) + 0.5) / fine
    total = np.zeros((fine, fine))
    for x, y, seconds in reading:
        if 0 <= x < 1 and 0 <= y < 1 and seconds > 0:
            squared = (place[None, :] - x) ** 2 + (place[:, None] - y) ** 2
            total += seconds * np.exp(-squared / (2 * SPREAD**2))
    pooled: Floats = total.reshape(SIDE, 8, SIDE, 8).sum((1, 3))
    return pooled / pooled.sum()


def peaks(profile: Floats) -> int:
    """Local maxima of a profile that has been smoothed a little."""
    smooth = np.convolve(profile, np.ones(5) / 5, mode="valid")
    inner = smooth[1:-1]
    return int(((inner > smooth[:-2]) & (inner > smooth[2:])).sum())


def test_all_fixations_are_read_and_those_outside_are_left_out(readings: Any) -> None:
    assert len(readings) == 1250
    assert sum(map(len, readings)) == 59_283
    assert sum(len(r) - len(inside(r)) for r in readings) == 364


def test_every_map_is_a_density(maps: Floats) -> None:
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum((1, 2)), 1.0, atol=1e-5)


def test_maps_are_literal_sums_of_gaussians(readings: Any, maps: Floats) -> None:
    for number in range(0, 1250, 50):
        want = literal(readings[number])
        np.testing.assert_allclose(maps[number], want, rtol=0, atol=2e-3 * want.max())


def test_two_lungs_stand_side_by_side_only_the_right_way_round(maps: Floats) -> None:
    mean = maps.mean(0)
    across, down = mean.sum(0), mean.sum(1)
    assert peaks(across) == 2
    assert peaks(down) == 1
