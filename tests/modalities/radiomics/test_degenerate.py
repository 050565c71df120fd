"""What regions without texture, or without pixels, have for an answer."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_rad.modalities.radiomics import FEATURES, Bins, radiomics


def named(greys: torch.Tensor, mask: torch.Tensor | None = None, **settings) -> dict[str, float]:
    found = radiomics(greys[None], None if mask is None else mask[None], **settings)[0]
    return dict(zip(FEATURES, found.tolist(), strict=True))


def test_a_region_without_pixels_has_no_features_and_its_neighbours_have_theirs():
    greys = torch.randint(0, 256, (3, 9, 9), dtype=torch.uint8)
    mask = torch.ones(3, 9, 9, dtype=torch.bool)
    mask[1] = False
    found = radiomics(greys, mask)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], radiomics(greys[[0, 2]]), rtol=1e-12, atol=1e-12)


def test_one_pixel_has_an_answer_where_there_is_one():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[2, 4] = True
    found = named(torch.full((5, 6), 130, dtype=torch.uint8), mask)
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {"shape.elongation"} | {
        name for name in FEATURES if name.startswith(("glcm.", "glrlm."))
    }
    assert found["first_order.mean"] == found["first_order.median"] == 130
    assert found["first_order.variance"] == found["first_order.kurtosis"] == 0
    assert found["shape.mesh_surface"] == 0.5
    assert found["shape.maximum_diameter"] == 1
    assert found["shape.major_axis_length"] == 0
    assert found["glszm.zone_percentage"] == found["gldm.small_dependence_emphasis"] == 1
    assert found["ngtdm.coarseness"] == 1e6
    assert found["ngtdm.strength"] == found["ngtdm.busyness"] == 0


@pytest.mark.parametrize("grey", [0, 25, 255])
@pytest.mark.parametrize("bins", [Bins(), Bins(width=None, count=32)])
def test_a_flat_region_has_the_answers_that_pyradiomics_gives(grey, bins):
    found = named(torch.full((8, 8), grey, dtype=torch.uint8), bins=bins)
    assert not any(math.isnan(value) for value in found.values())
    shape = [name for name in FEATURES if name.startswith("shape.")]
    of_sizes = ["run_entropy", "run_variance", "dependence_entropy", "dependence_variance"]
    for name, value in found.items():
        spread = name.endswith(
            ("entropy", "variance", "skewness", "kurtosis", "range", "deviation")
        )
        spread |= name.endswith(("imc1", "imc2", "contrast", "difference_average", "tendency"))
        spread |= name.endswith(("busyness", "complexity", "strength", "shade", "prominence"))
        if spread and name not in shape and not name.endswith(tuple(of_sizes)):
            assert value == 0, name
    assert found["glcm.correlation"] == found["glcm.mcc"] == 1
    assert found["first_order.uniformity"] == found["glcm.joint_energy"] == 1
    assert found["ngtdm.coarseness"] == 1e6
    assert found["first_order.mean"] == grey


def test_no_feature_is_infinite_whatever_the_region():
    torch.manual_seed(0)
    mask = torch.rand(200, 6, 6) < torch.rand(200, 1, 1)
    mask[:50] &= torch.rand(50, 6, 6) < 0.1
    greys = torch.randint(0, 256, (200, 6, 6)) * (torch.rand(200, 1, 1) < 0.8)
    assert not radiomics(greys.to(torch.uint8), mask).isinf().any()


@pytest.mark.parametrize(
    ("greys", "mask"),
    [
        (torch.zeros(2, 4, 4), None),
        (torch.zeros(4, 4, dtype=torch.uint8), None),
        (torch.zeros(2, 4, 0, dtype=torch.uint8), None),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.ones(2, 4, 5, dtype=torch.bool)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.ones(2, 4, 4)),
    ],
)
def test_other_tensors_are_refused(greys, mask):
    with pytest.raises(ValueError, match="must be"):
        radiomics(greys, mask)


def test_no_region_has_no_row():
    assert radiomics(torch.zeros(0, 4, 4, dtype=torch.uint8)).shape == (0, 102)
