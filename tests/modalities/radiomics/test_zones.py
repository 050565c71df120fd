"""Connected parts of one level, against scipy's labels; and how long joining takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from lightning_rad.modalities.radiomics import zones as module
from lightning_rad.modalities.radiomics.zones import zones
from tests.modalities.radiomics.cases import blobs, noise


def by_scipy(levels: np.ndarray) -> Counter[tuple[int, int, int]]:
    found: Counter[tuple[int, int, int]] = Counter()
    for region, plane in enumerate(levels):
        for level in set(plane[plane > 0].tolist()):
            parts, _ = label(plane == level, np.ones((3, 3)))
            found.update((region, level, int(size)) for size in np.bincount(parts.ravel())[1:])
    return found


@pytest.mark.parametrize("kinds", [2, 3, 6])
@pytest.mark.parametrize("shape", [(33, 21), (1, 17), (17, 1), (1, 1)])
def test_zones_are_those_of_scipy(kinds, shape):
    levels = np.random.default_rng(kinds).integers(0, kinds, (6, *shape)).astype(np.int16)
    found = Counter(zip(*(part.tolist() for part in zones(torch.from_numpy(levels))), strict=True))
    assert found == by_scipy(levels)


def spiral(side: int) -> np.ndarray:
    """A line one pixel wide that winds to the middle, one pixel of another level between turns."""
    levels = np.ones((side, side), dtype=np.int16)
    place, step = [0, 0], [0, 1]
    length, turns = side - 1, 0
    while length > 0:
        for _ in range(length):
            levels[tuple(place)] = 2
            place = [place[0] + step[0], place[1] + step[1]]
        step = [step[1], -step[0]]
        turns += 1
        if turns >= 3 and turns % 2 == 1:
            length -= 2
    return levels


@pytest.mark.parametrize("name", ["spiral", "noise", "blobs"])
def test_joining_takes_few_rounds(name, monkeypatch):
    made = {
        "spiral": lambda: np.stack([spiral(224), spiral(224).T]),
        "noise": lambda: noise(224)[None] // 128 + 1,
        "blobs": lambda: blobs(224)[None] // 25 + 1,
    }
    rounds, jumps = 0, 0
    followed, equal = module._followed, torch.equal

    def counted(least):
        nonlocal rounds
        rounds += 1
        return followed(least)

    def asked(one, other):
        nonlocal jumps
        jumps += 1
        return equal(one, other)

    monkeypatch.setattr(module, "_followed", counted)
    monkeypatch.setattr(torch, "equal", asked)
    levels = made[name]().astype(np.int16)
    sizes = zones(torch.from_numpy(levels))[2]
    assert sizes.sum() == levels.size
    assert rounds <= 12
    assert jumps <= 60
