from __future__ import annotations

from dataclasses import replace

import numpy as np

from lightning_rad.sharding.sources.synthetic.detector import (
    Exposure,
    add_marker,
    draw_exposure,
    expose,
)
from lightning_rad.sharding.sources.synthetic.projection import Camera

USUAL = Exposure(2000.0, 0.5, 0.6, (1.0, 99.0), 1.0, 0.0, 1.0, 7)


def a_step() -> np.ndarray:
    """Thin tissue on the left, thick on the right."""
    return np.repeat(np.where(np.arange(64) < 32, 2.0, 4.0)[None].astype(np.float32), 64, axis=0)


def test_dense_is_bright() -> None:
    shown = expose(a_step(), USUAL)
    assert shown.dtype == np.uint8
    assert shown[:, 40:].mean() > shown[:, :24].mean() + 100


def test_fewer_photons_make_more_noise_and_the_same_seed_the_same_noise() -> None:
    flat = np.full((64, 64), 3.0, np.float32)
    flat[:, :8] = 1.5
    noise = [
        expose(flat, replace(USUAL, photons=n))[:, 20:].astype(float).std() for n in (100, 10000)
    ]
    assert noise[0] > 3 * noise[1]
    assert np.array_equal(expose(flat, USUAL), expose(flat, USUAL))
    assert not np.array_equal(expose(flat, USUAL), expose(flat, replace(USUAL, seed=8)))


def test_scatter_spills_from_thin_parts_over_dense_ones() -> None:
    strip = np.full((64, 64), 5.0, np.float32)
    strip[:, :16] = 2.0
    spilled = []
    for scatter in (0.0, 1.0):
        still = replace(USUAL, window=(0.0, 100.0), photons=1e9, scatter=scatter)
        shown = expose(strip, still).astype(float)
        spilled.append(shown[:, 50:].mean() - shown[:, 22:26].mean())
    assert abs(spilled[0]) < 2.0
    assert spilled[1] > 10.0


def test_a_picture_of_nothing_is_still_a_picture() -> None:
    assert expose(np.zeros((32, 32), np.float32), USUAL).shape == (32, 32)


def test_exposures_vary_and_bedside_ones_are_noisier() -> None:
    rng = np.random.default_rng(0)
    upright = [draw_exposure(rng, portable=False) for _ in range(200)]
    bedside = [draw_exposure(rng, portable=True) for _ in range(200)]
    assert np.median([e.photons for e in bedside]) < np.median([e.photons for e in upright])
    assert np.std([e.gamma for e in upright]) > 0.15


def test_a_marker_is_dense_and_stays_in_its_corner() -> None:
    plate = np.zeros((128, 128), np.float32)
    eye = Camera("PA", 128, 0.3, 0.0, (0.0, 0.0), 12.0, 180.0)
    add_marker(plate, eye, "R", (0.08, 0.1))
    rows, columns = np.nonzero(plate)
    assert plate.max() > 4.0
    assert columns.max() < 0.15 * 128
    assert rows.max() < 0.18 * 128
