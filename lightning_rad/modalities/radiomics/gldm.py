"""Grey level dependence: how many of a pixel's 8 neighbours have its level, itself counted too.

Source: pyradiomics 3.1, documentation of the class gldm, alpha 0 and distance 1 (IBSI section 3.11:
neighbouring grey level dependence).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.counting import counted
from lightning_rad.modalities.radiomics.distributions import emphases
from lightning_rad.modalities.radiomics.regions import Regions

_OWN: Final = {
    "dependence_entropy": "entropy",
    "dependence_non_uniformity": "size_non_uniformity",
    "dependence_non_uniformity_normalized": "size_non_uniformity_normalized",
    "dependence_variance": "size_variance",
    "gray_level_non_uniformity": "level_non_uniformity",
    "gray_level_variance": "level_variance",
    "high_gray_level_emphasis": "high",
    "large_dependence_emphasis": "large",
    "large_dependence_high_gray_level_emphasis": "large_high",
    "large_dependence_low_gray_level_emphasis": "large_low",
    "low_gray_level_emphasis": "low",
    "small_dependence_emphasis": "small",
    "small_dependence_high_gray_level_emphasis": "small_high",
    "small_dependence_low_gray_level_emphasis": "small_low",
}
NAMES: Final = tuple(_OWN)
MOST: Final = 9


def gldm(regions: Regions) -> Tensor:
    """[R, 14] in the order of NAMES."""
    alike = torch.ones_like(regions.walk, dtype=torch.uint8)
    for step, (here, there) in zip(regions.steps, regions.pairs(), strict=True):
        same = here == there
        alike[:, :-step] += same
        alike[:, step:] += same
    # places outside are alike too, among each other; their level is 0, which is left out
    shape = (len(regions.rows), regions.most + 1, MOST + 1)
    counts = counted((regions.rows, regions.walk, alike), shape)[:, 1:, 1:]
    sizes = torch.arange(1, MOST + 1, device=counts.device)
    found = emphases(counts, sizes, regions.pixels)
    return torch.stack([found[name] for name in _OWN.values()], 1)
