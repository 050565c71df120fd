"""Which families look at a value of the device: on tensors that have none, those would fail.

A GPU itself is asked in `test_device.py`.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from lightning_rad.modalities.radiomics import Bins, cut
from lightning_rad.modalities.radiomics.first_order import first_order
from lightning_rad.modalities.radiomics.glcm import glcm
from lightning_rad.modalities.radiomics.gldm import gldm
from lightning_rad.modalities.radiomics.glrlm import glrlm
from lightning_rad.modalities.radiomics.glszm import glszm
from lightning_rad.modalities.radiomics.ngtdm import ngtdm
from lightning_rad.modalities.radiomics.regions import Regions
from lightning_rad.modalities.radiomics.shape import shape

BINS = pytest.mark.parametrize("bins", [Bins(), Bins(width=None, count=32)])


def regions(bins: Bins) -> Regions:
    greys = torch.zeros(3, 20, 17, dtype=torch.uint8)
    return Regions.of(greys, torch.ones_like(greys, dtype=torch.bool), bins)


@BINS
@pytest.mark.parametrize("family", [first_order, glcm, gldm, ngtdm])
def test_families_without_parts_never_wait(family, bins):
    with FakeTensorMode(), torch.device("cuda"):
        assert family(regions(bins)).shape[0] == 3


def test_neither_shape_nor_cutting_to_a_side_waits():
    with FakeTensorMode(), torch.device("cuda"):
        greys = torch.zeros(3, 40, 40, dtype=torch.uint8)
        tiles, mask = cut(greys, torch.zeros(3, 4), side=24)
        assert tiles.shape == (3, 24, 24)
        assert shape(mask).shape == (3, 9)


@pytest.mark.parametrize("family", [glrlm, glszm])
def test_runs_and_zones_ask_how_many_there_are(family):
    with (
        FakeTensorMode(),
        torch.device("cuda"),
        pytest.raises(DynamicOutputShapeException),
    ):
        family(regions(Bins()))
