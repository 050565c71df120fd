"""Boxes of many heat maps against the transcription's plain flood fill."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from lightning_rad.modalities.heat import box_of_heat
from tests.objectives.transcribed.hot_box import hot_box

MAPS = 12


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(
    ("grid", "size"),
    [(3, (16, 16)), (7, (224, 224)), (7, (40, 96)), (14, (64, 64)), (31, (64, 50))],
)
def test_a_box_is_that_of_the_flood_fill(
    grid: int, size: tuple[int, int], threshold: float
) -> None:
    """Noise of a few hills, some of it below zero, with parts that lie apart or touch corners."""
    generator = torch.Generator().manual_seed(grid)
    coarse = torch.randn(MAPS, 1, 3 + grid // 3, 3 + grid // 3, generator=generator).double()
    heat = interpolate(coarse, (grid, grid), mode="bilinear")[:, 0]
    heat[-1] = -heat[-1].abs()
    boxes, found = box_of_heat(heat, size, threshold=threshold)
    wanted = [hot_box(map_.tolist(), size, threshold) for map_ in heat]
    assert found.tolist() == [box is not None for box in wanted]
    assert 1 <= sum(found.tolist()) < MAPS
    for box, expected in zip(boxes, wanted, strict=True):
        if expected is not None:
            assert box.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("grid", "side"), [(3, 96), (7, 224), (14, 224), (31, 64)])
def test_a_flat_map_of_any_value_has_no_box(grid: int, side: int, dtype: torch.dtype) -> None:
    """Interpolation rounds, and what is made finer need not be flat to the last bit."""
    generator = torch.Generator().manual_seed(grid)
    heights = torch.rand(100, generator=generator, dtype=torch.float64).to(dtype)
    heat = heights[:, None, None].expand(-1, grid, grid).contiguous()
    _, found = box_of_heat(heat, (side, side))
    assert not found.any()
    assert all(hot_box(map_.tolist(), (side, side), 0.5) is None for map_ in heat)
