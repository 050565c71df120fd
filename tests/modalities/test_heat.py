"""Boxes of heat maps: the component of the peak, whole to the pixel of the finer map."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_rad.modalities.heat import (
    FALLBACK,
    FINEST,
    _finer,
    box_of_heat,
    fallback,
    heat_along,
)


def blocks(side: int, *rectangles: tuple[int, int, int, int, float]) -> Tensor:
    """A map [1, side, side] of zeros with rectangles (left, top, right, bottom, heat)."""
    map_ = torch.zeros(1, side, side)
    for left, top, right, bottom, heat in rectangles:
        map_[0, top:bottom, left:right] = heat
    return map_


@pytest.mark.parametrize("side", [4, 7, 14, 28, 56, 64])
@pytest.mark.parametrize("place", ["corner", "middle", "edge"])
def test_a_plateau_gives_its_own_rectangle_exactly(side: int, place: str) -> None:
    left, top = {"corner": (0, 0), "middle": (1, 2), "edge": (side - 2, 1)}[place]
    box, found = box_of_heat(blocks(side, (left, top, left + 2, top + 1, 3.0)), (448, 448))
    cell = 448 / side
    wanted = torch.tensor([left, top, left + 2, top + 1]) * cell
    assert found.tolist() == [True]
    torch.testing.assert_close(box[0], wanted, rtol=0, atol=1e-4)


def test_the_peak_chooses_not_the_size_or_the_place() -> None:
    map_ = blocks(14, (0, 0, 6, 6, 0.9), (10, 9, 12, 11, 1.0), (13, 13, 14, 14, 0.8))
    box, _ = box_of_heat(map_, (224, 224))
    assert box[0].tolist() == [160, 144, 192, 176]


def test_what_touches_the_hot_part_at_a_corner_belongs_to_it_and_what_is_apart_does_not() -> None:
    map_ = blocks(56, (10, 10, 12, 12, 1.0), (12, 12, 15, 13, 0.7), (17, 12, 19, 13, 0.7))
    box, _ = box_of_heat(map_, (56, 56))
    assert box[0].tolist() == [10, 10, 15, 13]


def test_a_part_that_winds_far_is_followed_to_its_end() -> None:
    map_ = torch.zeros(1, 40, 40)
    for row in range(0, 40, 4):  # a snake of one pixel width
        map_[0, row] = 0.8
        map_[0, row : row + 4, 39 if row % 8 == 0 else 0] = 0.8
    map_[0, 0, 0] = 1.0
    map_[0, 36:] = 0.0
    box, _ = box_of_heat(map_, (40, 40))
    assert box[0].tolist() == [0, 0, 40, 36]


def test_boxes_are_in_pixels_of_a_picture_that_is_not_square() -> None:
    box, _ = box_of_heat(blocks(8, (2, 1, 4, 2, 1.0)), (80, 160))
    assert box[0].tolist() == [40, 10, 80, 20]


def test_a_higher_threshold_gives_a_smaller_box_and_the_scale_of_heat_changes_nothing() -> None:
    places = torch.arange(14) - 6.5
    map_ = torch.exp(-(places[:, None].square() + places.square()) / 18)[None]
    sizes = []
    for threshold in (0.3, 0.5, 0.8):
        box, _ = box_of_heat(map_, (224, 224), threshold=threshold)
        sizes.append(float(box[0, 2] - box[0, 0]))
        again, _ = box_of_heat(1e-6 * map_, (224, 224), threshold=threshold)
        assert torch.equal(again, box)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_what_is_below_zero_is_no_heat_however_cold_it_is() -> None:
    map_ = torch.rand(3, 14, 14, generator=torch.Generator().manual_seed(0)) ** 4
    cold = torch.where(map_ > 0.2, map_, -50.0)
    none = torch.where(map_ > 0.2, map_, 0.0)
    assert torch.equal(box_of_heat(cold, (224, 224))[0], box_of_heat(none, (224, 224))[0])


def test_rows_do_not_depend_on_one_another() -> None:
    maps = torch.rand(5, 7, 7, generator=torch.Generator().manual_seed(0)) ** 8
    maps[2] = 0
    whole, found = box_of_heat(maps, (96, 96))
    for row in range(5):
        alone, one = box_of_heat(maps[row : row + 1], (96, 96))
        assert torch.equal(alone[0], whole[row])
        assert bool(one) == bool(found[row])
    assert found.tolist() == [True, True, False, True, True]


def test_half_precision_is_made_wide_and_float64_stays() -> None:
    map_ = blocks(7, (1, 1, 3, 3, 1.0))
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        box, _ = box_of_heat(map_.to(dtype), (224, 224))
        assert box.dtype == wide
        assert box[0].tolist() == [32, 32, 96, 96]


def test_the_fallback_is_the_published_one_at_224() -> None:
    assert fallback(torch.zeros(1), (224, 224)).tolist() == [24, 24, 200, 200]
    assert FALLBACK[2] == 200 / 224


def test_heat_is_the_channels_along_the_weights_in_their_places() -> None:
    tokens, weights = torch.randn(2, 9, 4), torch.randn(2, 4)
    heat = heat_along(tokens.bfloat16(), weights)
    assert heat.dtype == torch.float32
    assert heat.shape == (2, 3, 3)
    wanted = (tokens.bfloat16()[1, 5].float() * weights[1]).sum()
    torch.testing.assert_close(heat[1, 1, 2], wanted)


@pytest.mark.parametrize("shift", [-0.5, -0.25, 0.0, 0.25])
@pytest.mark.parametrize("side", [7, 14])
def test_a_hot_place_is_boxed_where_it_lies(shift: float, side: int) -> None:
    map_ = torch.zeros(1, side, side)
    map_[0, 2, 4] = 1.0
    box, found = box_of_heat(map_, (224, 224), shift=shift)
    assert found.all()
    left, top, right, bottom = box[0].tolist()
    patch = 224 / side
    # a pixel of the finer map is 4 pixels of the picture wide
    assert (left + right) / 2 == pytest.approx((4.5 + shift) * patch, abs=2)
    assert (top + bottom) / 2 == pytest.approx((2.5 + shift) * patch, abs=2)


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (5, 40)])
def test_an_unshifted_map_is_made_finer_as_torch_does(size: tuple[int, int]) -> None:
    map_ = torch.rand(3, 7, 7, dtype=torch.float64)
    sides = [max(7, min(side, FINEST)) for side in size]
    wanted = interpolate(map_[:, None], sides, mode="bilinear")[:, 0]
    torch.testing.assert_close(_finer(map_, size, 0.0), wanted, rtol=1e-12, atol=1e-12)
