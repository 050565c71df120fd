"""What rows of a table of boxes become: rectangles, boxes around masks, means of readers' boxes."""

import numpy as np
import pytest

from lightning_rad.schema import Box
from lightning_rad.sharding.sources.boxes import BoxTable, fused, iou
from lightning_rad.sharding.sources.runs import Runs
from lightning_rad.sharding.sources.table import TableSource
from tests.sharding.phantoms import write_csv, write_images


def runs_of(mask, *, absolute=False):
    """Straight from the definition, pixel by pixel."""
    text, at = [], 0
    flat = mask.T.ravel().tolist()
    while any(flat[at:]):
        start = flat.index(True, at)
        end = start
        while end < len(flat) and flat[end]:
            end += 1
        text += [start + 1 if absolute else start - at, end - start]
        at = end
    return " ".join(map(str, text))


@pytest.mark.parametrize("absolute", [False, True])
def test_the_box_of_a_mask_is_around_all_of_its_pixels(absolute):
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width = (int(n) for n in rng.integers(1, 12, 2))
        mask = rng.random((height, width)) < rng.choice([0.05, 0.3, 1.0])
        mask.flat[rng.integers(mask.size)] = True
        ys, xs = np.nonzero(mask)
        expected = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        runs = Runs("m", [height, width], absolute=absolute)
        assert runs.bounds({"m": runs_of(mask, absolute=absolute)}) == expected


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 2 3", "damaged mask: no pairs"),
        ("", "damaged mask: no pairs"),
        ("-1", "damaged mask: no pairs"),
        ("Smith 3", "damaged mask: in column 'm'"),
        ("0 13", "degenerate mask: empty, or beyond the image"),
        ("5 0", "degenerate mask: empty, or beyond the image"),
    ],
)
def test_a_damaged_mask_is_refused_without_its_cell(cell, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Runs("m", [4, 3]).bounds({"m": cell})
    assert "Smith" not in str(error.value)


def box(x, y, w=10.0, h=10.0, label="A"):
    return Box(label, x, y, w, h)


def test_boxes_of_one_finding_that_overlap_enough_become_their_mean():
    rows = [
        ("1", box(0, 0)), ("2", box(50, 50)), ("3", box(2, 0)), ("4", box(1, 0, label="B")),
        ("5", box(1, 3)), ("6", box(51, 50, 11, 10)),
    ]  # fmt: skip
    assert fused(rows, 0.5) == [
        ("1", box(1, 1)),
        ("2", box(50.5, 50, 10.5, 10)),
        ("4", box(1, 0, label="B")),
    ]
    assert fused(rows, 1.0) == rows
    assert fused([], 0.5) == []


def test_the_overlap_is_the_share_of_pixels_in_both():
    def pixels(one):
        canvas = np.zeros((40, 40), bool)
        canvas[int(one.y) : int(one.y + one.h), int(one.x) : int(one.x + one.w)] = True
        return canvas

    rng = np.random.default_rng(1)
    for _ in range(50):
        one, other = (box(*map(float, [*rng.integers(0, 20, 2), *rng.integers(1, 20, 2)])),) * 2
        other = box(*map(float, [*rng.integers(0, 20, 2), *rng.integers(1, 20, 2)]))
        a, b = pixels(one), pixels(other)
        assert iou(one, other) == pytest.approx((a & b).sum() / (a | b).sum())


def test_corners_constants_and_rows_without_a_box_are_read_of_several_tables(tmp_path):
    write_csv(tmp_path / "table.csv", [{"file": "a.png", "who": "x"}])
    write_images(tmp_path, ["a.png"])
    here = {"file": "a.png", "x1": "", "y1": "", "x2": "", "y2": "", "found": "0"}
    there = here | {"x1": "2", "y1": "3", "x2": "6", "y2": "13", "found": "1"}
    write_csv(tmp_path / "one.csv", [here, there])
    write_csv(tmp_path / "two.csv", [there | {"x2": "1"}, there | {"x1": "0"}])
    boxes = {"csv": ["one.csv", "two.csv"], "image": "file", "finding": "Mass", "x": "x1"}
    boxes |= {"y": "y1", "right": "x2", "bottom": "y2", "none": {"found": [0]}}
    columns = {"image": "file", "patient": "who"}
    source = TableSource(tmp_path, csv="table.csv", columns=columns, boxes=boxes)
    (study,), rejected = source.plan()
    assert study.images[0].boxes == (Box("Mass", 2, 3, 4, 10), Box("Mass", 0, 3, 6, 10))
    reason = "degenerate box: not finite, or without an area"
    assert [(r.where, r.reason) for r in rejected] == [("two.csv line 2", reason)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"right": "x2"}, "'right' and 'bottom' go together"),
        ({"fuse": 0}, "'fuse' is 0; accepted are an overlap above 0, up to 1"),
        ({"runs": {"column": "m", "size": [1024]}}, r"'size' is \[1024\]; accepted are height"),
        ({"runs": {"column": "m", "size": [8, 8], "rows": 1}}, "boxes.runs: unknown key 'rows'"),
    ],
)
def test_settings_of_boxes_that_mean_nothing_are_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        BoxTable("boxes.csv", **settings)
