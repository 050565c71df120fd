"""Boxes cut out of images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_rad.modalities.boxes import filled
from lightning_rad.modalities.radiomics import cut, radiomics

BOXES = torch.tensor(
    [[2.0, 3, 9, 20], [0, 0, 32, 32], [30.2, 1, 60, 4], [5, 5, 5, 9], [40, 2, 50, 9]]
)


def images(number: int = 5) -> torch.Tensor:
    made = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 32, 32), dtype=torch.uint8, generator=made)


def test_a_box_cut_out_has_the_features_of_the_box_in_its_image():
    greys = images()
    found = radiomics(*cut(greys, BOXES))
    wanted = radiomics(greys, filled(BOXES, 32, 32))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert found[3:].isnan().all()


def test_tiles_are_as_large_as_the_largest_box_and_no_larger():
    tiles, mask = cut(images(), BOXES[:1].expand(5, 4))
    assert tiles.shape == mask.shape == (5, 24, 8)
    assert mask.sum((1, 2)).tolist() == [17 * 7] * 5
    assert cut(images(), BOXES[3:4].expand(5, 4))[0].shape == (5, 8, 8)


def test_boxes_say_which_image_they_are_of():
    greys = images(3)
    image = torch.tensor([2, 0, 2, 1, 1])
    tiles, mask = cut(greys, BOXES, image)
    whole, whole_mask = cut(greys[image], BOXES)
    assert torch.equal(tiles, whole)
    assert torch.equal(mask, whole_mask)
    with pytest.raises(ValueError, match="5 boxes of 3 images"):
        cut(greys, BOXES)


def test_a_tile_of_a_given_side_holds_the_upper_left_part_of_a_larger_box():
    greys = images()
    tiles, mask = cut(greys, BOXES, side=16)
    assert tiles.shape == (5, 16, 16)
    assert torch.equal(tiles[1], greys[1, :16, :16])
    assert mask[0].sum() == 16 * 7


def test_no_box_has_no_tile():
    tiles, mask = cut(images(), BOXES[:0], torch.zeros(0, dtype=torch.int64))
    assert len(tiles) == len(mask) == 0
    assert radiomics(tiles, mask).shape == (0, 102)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"greys": images()[:, None]}, r"greys must be \[B, H, W\], not \[5, 1, 32, 32\]"),
        ({"boxes": BOXES[0]}, r"boxes must be \[R, 4\] \(left, top, right, bottom\), not \[4\]"),
        ({"boxes": BOXES[:, :3]}, r"boxes must be \[R, 4\] .*, not \[5, 3\]"),
        ({"boxes": BOXES[None]}, r"boxes must be \[R, 4\] .*, not \[1, 5, 4\]"),
        ({"boxes": BOXES[:2]}, r"2 boxes of 5 images: give image, \[R\], the image of each box"),
        ({"image": torch.arange(4)}, r"image must be \[5\] int64, .* not \[4\] torch.int64"),
        ({"image": torch.ones(5)}, r"image must be \[5\] int64, .* not \[5\] torch.float32"),
        ({"side": 0}, r"side must be at least 1, not 0"),
    ],
)
def test_shapes_that_do_not_go_are_named_beside_those_that_do(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as told:
        cut(**({"greys": images(), "boxes": BOXES} | change))
    assert "\n" not in str(told.value)


def test_a_mask_of_another_shape_or_kind_is_named() -> None:
    greys = images()
    with pytest.raises(ValueError, match=r"\[5, 32, 32\] bool as greys, not \[32, 32\] torch.bool"):
        radiomics(greys, greys[0] > 3)
    with pytest.raises(ValueError, match=r"\[5, 32, 32\] bool as greys, not .* torch.uint8"):
        radiomics(greys, greys)
