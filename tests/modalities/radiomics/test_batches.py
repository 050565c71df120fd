"""A region's features are its own: not those of its neighbours, its tile or its place in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from lightning_rad.modalities.radiomics import FEATURES, Bins, radiomics

PLACES = pytest.mark.parametrize("bins", [Bins(), Bins(width=None, count=16), Bins(width=3.0)])


def some(seed: int, regions: int = 5, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (regions, side, side), generator=made)
    smooth = (coarse + coarse.roll(1, 2) + coarse.roll(1, 1)) // 3
    greys = torch.where(torch.rand(regions, 1, 1, generator=made) < 0.5, coarse, smooth)
    mask = torch.rand(regions, side, side, generator=made) < torch.rand(
        regions, 1, 1, generator=made
    )
    return greys.to(torch.uint8), mask


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), at_once=st.integers(1, 6))
def test_a_batch_is_its_regions_one_by_one(seed, at_once):
    greys, mask = some(seed)
    alone = [radiomics(greys[r : r + 1], mask[r : r + 1]) for r in range(len(greys))]
    same(radiomics(greys, mask), torch.cat(alone))
    same(radiomics(greys, mask, at_once=at_once), torch.cat(alone))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_the_order_of_regions_is_the_order_of_rows(seed, order):
    greys, mask = some(seed)
    same(radiomics(greys[order], mask[order]), radiomics(greys, mask)[order])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), border=st.tuples(*[st.integers(0, 4)] * 4), grey=st.integers(0, 255)
)
def test_neither_the_tile_nor_the_place_in_it_matters(seed, border, grey):
    greys, mask = some(seed)
    moved = radiomics(pad(greys, border, value=grey), pad(mask, border, value=False))
    same(moved, radiomics(greys, mask))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_greys_outside_of_the_mask_do_not_matter(seed):
    greys, mask = some(seed)
    other = torch.where(mask, greys, 255 - greys)
    same(radiomics(other, mask), radiomics(greys, mask))


@PLACES
def test_a_turned_or_mirrored_region_has_the_same_features(bins):
    greys, mask = some(1)
    wanted = radiomics(greys, mask, bins=bins)
    same(radiomics(greys.mT, mask.mT, bins=bins), wanted)
    same(radiomics(greys.flip(2), mask.flip(2), bins=bins), wanted)


def test_greys_a_bin_higher_have_the_same_textures():
    greys, mask = some(2)
    greys = greys // 2
    textures = [k for k, name in enumerate(FEATURES) if name.split(".")[0] not in {"first_order"}]
    same(radiomics(greys + 50, mask)[:, textures], radiomics(greys, mask)[:, textures])


def test_features_have_no_gradient_and_are_in_double_precision():
    found = radiomics(*some(3))
    assert found.dtype == torch.float64
    assert not found.requires_grad
