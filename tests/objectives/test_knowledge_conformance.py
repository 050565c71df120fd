"""The lettered conformance tests of the knowledge contrast that need no run: boxes and features.

(e) and (f) as a run has them are in `test_knowledge_contrast`.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.localisation import located
from lightning_rad.modalities.boxes import iou, scaled
from lightning_rad.modalities.heat import box_of_heat, heat_along
from lightning_rad.modalities.radiomics import FEATURES, cut, radiomics
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.finding_classifier import FindingClassifier

SIZE = (224, 224)
PUBLISHED = [24.0, 24.0, 200.0, 200.0]


def test_knowledge_a_a_box_gives_102_named_features_with_shape_in_two_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    greys = torch.randint(0, 256, (1, 96, 96), generator=generator).to(torch.uint8)
    tiles, mask = cut(greys, torch.tensor([[10.0, 20.0, 42.0, 44.0]]))
    features = radiomics(tiles, mask)
    assert features.shape == (1, len(FEATURES)) == (1, 102)
    assert features.isfinite().all()
    families = [name.split(".")[0] for name in FEATURES]
    counts = {family: families.count(family) for family in dict.fromkeys(families)}
    assert len(set(FEATURES)) == 102
    assert counts == {
        "first_order": 18,
        "shape": 9,
        "glcm": 24,
        "glrlm": 16,
        "glszm": 16,
        "gldm": 14,
        "ngtdm": 5,
    }
    by_name = dict(zip(FEATURES, features[0].tolist(), strict=True))
    assert by_name["shape.pixel_surface"] == 32 * 24  # of the box, whatever is in it
    assert by_name["shape.maximum_diameter"] == pytest.approx(float(np.hypot(32, 24)), abs=1.0)


def gaussian(side: int, x: float, y: float, sigma: float) -> tuple[Tensor, list[float]]:
    """A blob about (x, y) in cells of the map, and the rectangle of its upper half in pixels."""
    places = torch.arange(side) + 0.5
    map_ = torch.exp(-((places[:, None] - y).square() + (places - x).square()) / (2 * sigma**2))
    cell, reach = 224 / side, sigma * float(np.sqrt(2 * np.log(2)))
    corners = [x - reach, y - reach, x + reach, y + reach]
    return map_[None], [min(max(corner * cell, 0.0), 224.0) for corner in corners]


@pytest.mark.parametrize("side", [7, 14, 28])
def test_knowledge_b_a_heat_map_of_one_blob_gives_a_box_of_iou_above_0_7_with_it(side: int) -> None:
    generator = np.random.default_rng(side)
    maps, wanted = [], []
    for _ in range(60):
        x, y = generator.uniform(0.15 * side, 0.85 * side, 2)
        # narrower ones fall between the places of a map
        map_, box = gaussian(side, x, y, generator.uniform(1.5, side / 4))
        maps.append(map_)
        wanted.append(box)
        wide, high = generator.integers(1, side // 2 + 1, 2)  # a plateau
        left, top = generator.integers(0, side - wide + 1), generator.integers(0, side - high + 1)
        map_ = torch.zeros(1, side, side)
        map_[0, top : top + high, left : left + wide] = float(generator.uniform(0.1, 9))
        maps.append(map_)
        corners = np.array([left, top, left + wide, top + high]) * (224 / side)
        wanted.append(corners.tolist())
    boxes, found = box_of_heat(torch.cat(maps), SIZE, threshold=0.5)
    overlap = iou(boxes[:, None], torch.tensor(wanted)[:, None])[:, 0, 0]
    assert found.all()
    assert float(overlap.min()) > 0.7
    assert float(overlap[1::2].min()) > 0.999  # a plateau's is its own


def test_knowledge_c_an_empty_heat_map_gives_the_fallback_box() -> None:
    around = torch.full((7, 7), 1.0)  # hot along all four sides: its box is the whole picture
    around[2:5, 2:5] = 0.0
    empty = {
        "zero": torch.zeros(7, 7),
        "negative": -torch.rand(7, 7) - 0.1,
        "flat": torch.full((7, 7), 3.0),
        "not a number": torch.where(torch.eye(7).bool(), torch.nan, 1.0),
        "infinite": torch.where(torch.eye(7).bool(), torch.inf, 1.0),
        "the whole picture": around,
    }
    boxes, found = box_of_heat(torch.stack(list(empty.values())), SIZE)
    for name, box, one in zip(empty, boxes, found, strict=True):
        assert (bool(one), box.tolist()) == (False, PUBLISHED), name
    around[6] = 0.0  # one side open
    box, hot = box_of_heat(around[None], SIZE)
    assert (bool(hot), box[0].tolist()) == (True, [0, 0, 224, 192])


def test_knowledge_d_localisation_of_the_truth_itself_is_1_at_224_and_at_1024() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = 500 * torch.rand(12, 8, 2, generator=generator)
    boxes = torch.cat([corner, corner + 60 + 400 * torch.rand(12, 8, 2, generator=generator)], -1)
    finding = torch.arange(8).expand(12, 8)
    small = scaled(boxes, (1024, 1024), (224, 224))
    there = scaled(small, (224, 224), (1024, 1024))

    def macro(predicted: Tensor, given: Tensor) -> list[float]:
        patients, none = np.arange(1, 13), PatientBootstrap(0)
        scored = located(predicted, given, finding, patients, bootstrap=none, seed=0)
        assert scored.n.tolist() == [12] * 8
        return [one.value for one in scored.macro]

    assert macro(small, small) == [1.0] * 7
    assert macro(boxes, boxes) == [1.0] * 7
    assert macro(there, boxes) == [1.0] * 7
    assert macro(small, boxes)[0] < 0.3  # boxes of two scales are not compared as they are


def test_knowledge_e_other_weights_give_other_boxes_and_the_same_weights_the_same() -> None:
    torch.manual_seed(0)
    encoder = Encoder("test_resnet").eval()
    classifier = FindingClassifier(encoder.out_features, 3)
    images = torch.rand(6, 1, 64, 64)

    def boxes() -> Tensor:
        features, tokens = encoder(images, tokens=True)
        logits, directions = classifier(features)
        driving = directions[torch.arange(6), logits.argmax(1)]
        return box_of_heat(heat_along(tokens, driving), (64, 64))[0]

    before = boxes()
    assert torch.equal(boxes(), before)
    with torch.no_grad():
        for parameter in encoder.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(0.2 * parameter.std(correction=0) * noise)
    assert (boxes() != before).any(1).sum() >= 3
