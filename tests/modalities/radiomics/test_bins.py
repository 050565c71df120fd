"""Levels of greys: as pyradiomics bins them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_rad.modalities.radiomics import Bins
from lightning_rad.modalities.radiomics.bins import levels_of


def by_numpy(greys: np.ndarray, bins: Bins) -> np.ndarray:
    """What pyradiomics does with numpy: edges, then digitize."""
    if bins.count is not None:
        edges = np.histogram(greys, bins.count)[1]
        edges[-1] += 1
    else:
        low = greys.min() - greys.min() % bins.width
        edges = np.arange(low, greys.max() + 2 * bins.width, bins.width)
    return np.digitize(greys, edges)


@pytest.mark.parametrize(
    "bins",
    [Bins(), Bins(width=1.0), Bins(width=2.5), Bins(width=7.3), Bins(width=300.0)]
    + [Bins(width=None, count=count) for count in (2, 7, 32, 100, 256)],
)
def test_levels_are_those_of_numpy_for_any_range_of_greys(bins):
    made = np.random.default_rng(0)
    for _ in range(40):
        low, high = sorted(made.integers(0, 256, 2))
        greys = made.integers(low, high + 1, (3, 11)).astype(np.uint8)
        mask = torch.ones(1, 3, 11, dtype=torch.bool)
        found = levels_of(torch.from_numpy(greys)[None], mask, bins)[0]
        assert (found.numpy() == by_numpy(greys.astype(float), bins)).all()
        assert found.max() <= bins.levels


def test_a_grey_on_an_edge_belongs_to_the_bin_above_even_if_it_is_the_highest():
    greys = torch.tensor([[[30, 49, 50, 74, 75]]], dtype=torch.uint8)
    mask = torch.ones_like(greys, dtype=torch.bool)
    assert levels_of(greys, mask, Bins()).tolist() == [[[1, 1, 2, 2, 3]]]
    assert levels_of(greys, mask, Bins(width=None, count=2)).tolist() == [[[1, 1, 1, 2, 2]]]


def test_only_greys_in_the_mask_say_where_levels_begin():
    greys = torch.tensor([[[0, 110, 130]]], dtype=torch.uint8)
    mask = torch.tensor([[[False, True, True]]])
    assert levels_of(greys, mask, Bins()).tolist() == [[[0, 1, 2]]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 32}, "width and count"),
        ({"width": None}, "width and count"),
        ({"width": 0.5}, "width must be at least 1"),
        ({"width": float("nan")}, "width must be at least 1"),
        ({"width": None, "count": 1}, "count must be 2 to 256"),
        ({"width": None, "count": 257}, "count must be 2 to 256"),
    ],
)
def test_other_bins_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Bins(**settings)
