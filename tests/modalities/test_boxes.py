"""Boxes: their parts in an image, areas, overlaps and pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.modalities.boxes import area, clipped, filled, iou, scaled

NUMBERS = st.floats(-20, 60, width=32)
BOXES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=6).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


def test_a_box_against_itself_is_1_on_any_scale():
    box = torch.tensor([[10.0, 20, 110, 60], [0, 0, 224, 224]])
    larger = scaled(box, (224, 224), (1024, 1024))
    back = scaled(larger, (1024, 1024), (224, 224))
    assert iou(box, back).diagonal().tolist() == pytest.approx([1.0, 1.0])
    assert larger[1].tolist() == [0, 0, 1024, 1024]


def test_scaling_knows_height_from_width():
    assert scaled(torch.tensor([[1.0, 2, 3, 4]]), (10, 20), (20, 60)).tolist() == [[3, 4, 9, 8]]


def test_overlaps_of_known_boxes():
    one = torch.tensor([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    other = torch.tensor([[1.0, 1, 3, 3], [2, 0, 4, 2], [0, 0, 2, 1], [5, 5, 5, 5]])
    assert iou(one, other)[0].tolist() == pytest.approx([1 / 7, 0, 0.5, 0])
    assert iou(one, other)[1].tolist() == [0, 0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(boxes=BOXES)
def test_what_is_clipped_lies_in_the_image_and_is_never_turned_over(boxes):
    inside = clipped(boxes, 32, 48)
    assert (inside[:, 2:] >= inside[:, :2]).all()
    assert (inside >= 0).all()
    assert (inside[:, [0, 2]] <= 48).all()
    assert (inside[:, [1, 3]] <= 32).all()
    assert torch.equal(clipped(inside, 32, 48), inside)
    assert (area(inside) <= area(boxes)).all()


@settings(max_examples=60, deadline=None)
@given(boxes=BOXES)
def test_pixels_of_a_box_are_those_whose_centres_are_in_it(boxes):
    mask = filled(boxes, 32, 48)
    inside = clipped(boxes, 32, 48)
    for box, found in zip(inside.tolist(), mask, strict=True):
        left, top, right, bottom = box
        y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(48) + 0.5, indexing="ij")
        centres = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        assert not (centres & ~found).any()
        if right <= left or bottom <= top:
            assert not found.any()
        elif right - left >= 1 and bottom - top >= 1:
            assert torch.equal(found, centres)
        else:
            assert found.any()


def test_a_box_narrower_than_a_pixel_has_the_pixel_at_its_middle():
    mask = filled(torch.tensor([[3.6, 2.0, 3.9, 4.0], [31.8, 31.9, 40.0, 40.0]]), 32, 32)
    assert mask[0].nonzero().tolist() == [[2, 3], [3, 3]]
    assert mask[1].nonzero().tolist() == [[31, 31]]


def test_boxes_outside_without_area_or_without_numbers_have_no_pixels():
    nan = float("nan")
    boxes = torch.tensor(
        [
            [40.0, 2, 50, 9],
            [5, 5, 5, 9],
            [9, 5, 5, 9],
            [-9, -9, -1, -1],
            [nan, 0, 5, 5],
            [32, 0, 40, 9],
        ]
    )
    assert not filled(boxes, 32, 32).any()
