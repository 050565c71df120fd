"""Grey level size zones: connected pixels of one level.

Source: pyradiomics 3.1, documentation of the class glszm (IBSI section 3.8); 8 neighbours.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.counting import counted
from lightning_rad.modalities.radiomics.distributions import emphases
from lightning_rad.modalities.radiomics.regions import Regions
from lightning_rad.modalities.radiomics.zones import zones

_OWN: Final = {
    "gray_level_non_uniformity": "level_non_uniformity",
    "gray_level_non_uniformity_normalized": "level_non_uniformity_normalized",
    "gray_level_variance": "level_variance",
    "high_gray_level_zone_emphasis": "high",
    "large_area_emphasis": "large",
    "large_area_high_gray_level_emphasis": "large_high",
    "large_area_low_gray_level_emphasis": "large_low",
    "low_gray_level_zone_emphasis": "low",
    "size_zone_non_uniformity": "size_non_uniformity",
    "size_zone_non_uniformity_normalized": "size_non_uniformity_normalized",
    "small_area_emphasis": "small",
    "small_area_high_gray_level_emphasis": "small_high",
    "small_area_low_gray_level_emphasis": "small_low",
    "zone_entropy": "entropy",
    "zone_percentage": "percentage",
    "zone_variance": "size_variance",
}
NAMES: Final = tuple(_OWN)


def glszm(regions: Regions) -> Tensor:
    """[R, 16] in the order of NAMES. Waits for the host on CUDA: `zones`, and how many sizes.

    A zone may be as large as the region, but few sizes occur: the matrix has columns for these.
    """
    region, level, size = zones(regions.levels)
    sizes, column = torch.unique(size, return_inverse=True)
    shape = (len(regions.rows), regions.most, len(sizes))
    counts = counted((region, level - 1, column), shape)
    found = emphases(counts, sizes, regions.pixels)
    return torch.stack([found[name] for name in _OWN.values()], 1)
