"""Boxes beside views lie on what the views show of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.boxes import iou
from lightning_rad.modalities.evidence import FindingReading
from tests.data.evidence import CORNERS, batches_of, box, boxed, data_of, pixels_of, rectangle


@pytest.mark.parametrize("render", ["cpu", "device"])
@pytest.mark.parametrize(("rotation", "flip"), [(0.0, 0.0), (0.0, 0.5), (30.0, 0.5)])
def test_boxes_lie_on_what_the_view_shows_of_them(
    tiny_shards: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    render: Any,
    rotation: float,
    flip: float,
) -> None:
    """A white rectangle, in crops that are turned, mirrored and reduced by a whole factor."""
    shards = boxed(tiny_shards, tmp_path / "boxed", [box(names[1], *CORNERS)], picture=rectangle)
    crop = Crop(scale=(0.5, 0.9), rotation=rotation, flip=flip)
    shuffle = Shuffle(groups=4, window=16, flip=0.5)
    data = data_of(
        shards,
        FindingReading(names),
        views=[RandomView(64, crop=crop)] * 2,
        evaluation=Evaluation(WholeImage(64)),
        shuffle=shuffle,
        loading=Loading(threads=0, render=render),
    )
    inside, factors = 0, set()
    for batch in batches_of(data, 4):
        pixels = pixels_of(batch)[:, :, 0].numpy()
        found = batch.findings
        assert found is not None
        if render == "device":
            factors |= set(batch.pixels.params[0].factors.tolist())
        for place in np.ndindex(pixels.shape[:2]):
            boxes = found.boxes[place]
            assert found.finding[place].tolist() == [1]
            ys, xs = np.nonzero(pixels[place] > 127)
            seen = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
            cut = bool((seen == 0).any() or (seen == 64).any())
            if rotation and cut:  # the hull of a turned box that is cut is wider than what is left
                continue
            inside += 1
            assert float(iou(boxes, seen)) > 0.9
    assert inside >= 8
    assert factors <= {1, 2, 3, 4}
    assert 3 in factors or render == "cpu"


@pytest.mark.parametrize(
    ("corners", "kept"),
    [
        ((0, 0, 300, 240), (0, 6.4, 64, 57.6)),  # 300 wide: 64 * 240 / 300 high
        ((-1e9, -1e9, 1e9, 1e9), (0, 6.4, 64, 57.6)),
        ((-150, 0, 150, 240), (0, 6.4, 32, 57.6)),  # what lies beyond the picture is no part of it
        ((400, 0, 500, 100), None),
        ((-200, 0, -100, 100), None),
        ((10, 10, 10, 50), None),
        ((10, 10, 50, 5), None),
    ],
    ids=["whole", "huge", "half out", "out", "out on the left", "no area", "negative"],
)
def test_boxes_that_leave_the_picture_or_have_no_area(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...], corners: Any, kept: Any
) -> None:
    shards = boxed(tiny_shards, tmp_path / "boxed", [box(names[0], *corners)], picture=rectangle)
    whole = {"views": [WholeImage(64)], "evaluation": Evaluation(WholeImage(64))}
    found = batches_of(data_of(shards, FindingReading(names), **whole), 1)[0].findings
    assert found is not None
    if kept is None:
        assert found.boxes.shape == (1, 8, 0, 4)
        assert found.finding.shape == (1, 8, 0)
        return
    expected = torch.tensor(kept).float().expand(1, 8, 1, 4)
    torch.testing.assert_close(found.boxes, expected, atol=0.02, rtol=0)


def test_a_view_lists_the_boxes_that_it_shows_and_no_others(
    tiny_shards: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Each box of a checkerboard of them is a column's; small crops show some."""
    boxes = [box(names[(i + j) % 3], 60 * i, 60 * j, 60 * i + 60, 60 * j + 60)
             for i in range(5) for j in range(4)]  # fmt: skip
    shards = boxed(tiny_shards, tmp_path / "boxed", boxes, picture=rectangle)
    data = data_of(
        shards,
        FindingReading(names),
        views=[RandomView(64, crop=Crop(scale=(0.1, 0.3), rotation=0.0))],
        evaluation=Evaluation(WholeImage(64)),
        loading=Loading(threads=0, render="device"),
    )
    batch = batches_of(data, 1)[0]
    assert batch.findings is not None
    params, counts = batch.pixels.params[0], set()
    for row in range(8):
        affine = params.affine[row] / 2.0**16 * float(params.factors[row])
        left, top = affine[:, 2]
        right, bottom = affine @ (64, 64, 1)
        expected = []
        for one in boxes:
            across = min(right, one["x"] + 60) - max(left, one["x"])
            down = min(bottom, one["y"] + 60) - max(top, one["y"])
            share = max(0, across) * max(0, down) / 3600
            if abs(share - 0.5) < 0.03:
                break
            expected += [names.index(one["label"])] if share > 0.5 else []
        else:
            finding = batch.findings.finding[0, row]
            assert finding[finding >= 0].tolist() == expected
            assert batch.findings.boxes[0, row].isnan().all(1).tolist() == (finding < 0).tolist()
            counts.add(len(expected))
    assert len(counts) > 1
    assert max(counts) <= batch.findings.boxes.shape[2] < len(boxes)
