"""On a GPU: the numbers of the CPU, and where the host waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from lightning_rad.modalities.radiomics import Bins, cut, radiomics
from lightning_rad.modalities.radiomics.first_order import first_order
from lightning_rad.modalities.radiomics.glcm import glcm
from lightning_rad.modalities.radiomics.gldm import gldm
from lightning_rad.modalities.radiomics.ngtdm import ngtdm
from lightning_rad.modalities.radiomics.regions import Regions
from lightning_rad.modalities.radiomics.shape import shape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def some() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    greys = torch.randint(0, 256, (9, 40, 33), dtype=torch.uint8, generator=made)
    greys[3:] = greys[3:] // 64 * 60
    mask = torch.rand(greys.shape, generator=made) < torch.linspace(0, 1, 9)[:, None, None]
    return greys, mask


@pytest.mark.parametrize("bins", [Bins(), Bins(width=None, count=32)])
def test_a_gpu_has_the_numbers_of_the_cpu(bins):
    greys, mask = some()
    found = radiomics(greys.cuda(), mask.cuda(), bins=bins).cpu()
    wanted = radiomics(greys, mask, bins=bins)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("family", [first_order, glcm, gldm, ngtdm])
def test_the_host_does_not_wait_for_families_without_parts(family):
    greys, mask = (tensor.cuda() for tensor in some())
    with no_waiting():
        family(Regions.of(greys, mask, Bins()))
        shape(mask)


def test_the_host_does_not_wait_for_boxes_of_a_given_side():
    greys, _ = (tensor.cuda() for tensor in some())
    boxes = torch.tensor([[2.0, 3, 20, 30]], device="cuda").expand(9, 4)
    with no_waiting():
        cut(greys, boxes, side=32)
