"""Regions of many kinds, [h, w] greys and mask each; some grey in each lies below 25."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

Region = tuple[np.ndarray, np.ndarray]


def noise(side: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def blobs(side: int = 40, seed: int = 0, sigma: float = 3.0) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), sigma)
    return ((field - field.min()) / np.ptp(field) * 255).astype(np.uint8)


def chest(side: int = 48, seed: int = 0) -> np.ndarray:
    """Two dark lungs, a bright middle, ribs and some noise."""
    y, x = np.mgrid[:side, :side] / side
    lungs = sum(
        np.exp(-((((x - c) / 0.16) ** 2 + ((y - 0.5) / 0.33) ** 2) ** 2)) for c in (0.28, 0.72)
    )
    ribs = 12 * np.sin(2 * np.pi * 6 * (y + 0.4 * (x - 0.5) ** 2))
    grain = np.random.default_rng(seed).normal(0, 6, (side, side))
    return (190 - 165 * lungs + ribs * lungs + grain).clip(0, 255).astype(np.uint8)


def whole(greys: np.ndarray) -> np.ndarray:
    return np.ones(greys.shape, dtype=bool)


def disc(side: int, radius: float, hole: float = -1.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.hypot(y, x) <= radius) & (np.hypot(y, x) > hole)


def boxes(side: int, *corners: tuple[int, int, int, int]) -> np.ndarray:
    """Ones from top, left to bottom, right, of each."""
    mask = np.zeros((side, side), dtype=bool)
    for top, left, bottom, right in corners:
        mask[top:bottom, left:right] = True
    return mask


def regions() -> dict[str, Region]:
    two_levels = np.where(noise(20, 3) > 128, np.uint8(10), np.uint8(200))
    speckled = np.random.default_rng(5).random((40, 40)) < 0.6
    found = {
        "noise": (noise(), whole(noise())),
        "blobs": (blobs(), whole(blobs())),
        "chest": (chest(), whole(chest())),
        "chest in a disc": (chest(seed=1), disc(48, 20.0)),
        "ring": (blobs(seed=2), disc(40, 18.0, 9.0)),
        "two parts": (chest(seed=3), boxes(48, (4, 8, 20, 19), (25, 24, 44, 48))),
        "at the border": (chest(seed=4), boxes(48, (0, 0, 30, 17))),
        "holes": (blobs(seed=6), speckled),
        "one row": (blobs(seed=7), boxes(40, (11, 2, 12, 33))),
        "diagonal": (noise(24, 8), np.eye(24, dtype=bool)),
        "two levels": (two_levels, whole(two_levels)),
        "edges of bins": (noise(20, 9) // 25 * 25, whole(noise(20, 9))),
    }
    return {name: (_with_dark(greys, mask), mask) for name, (greys, mask) in found.items()}


def _with_dark(greys: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One pixel of the region made 3, so that references whose bins begin at 0 have the same."""
    greys = greys.copy()
    y, x = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
    greys[y, x] = min(greys[y, x], 3)
    return greys
