"""Radiomics of many regions at once, in torch, on the device where the images are.

102 features: first order 18, shape in the plane 9, GLCM 24, GLRLM 16, GLSZM 16, GLDM 14, NGTDM 5,
with the names, definitions and defaults of pyradiomics 3.1 for one slice (force2D): the image as it
is, no resampling, no normalisation, voxelArrayShift 0, pixels of area 1; bins 25 greys wide whose
edges are multiples of 25, or a number of bins; neighbours at distance 1 (8 of them, 4 directions),
symmetrical GLCM, no weightingNorm: features of GLCM and GLRLM are means over directions, matrices
are not merged; GLDM with alpha 0; zones of 8 neighbours.

Degenerate regions, each as pyradiomics has it where it has an answer:

- empty mask: all NaN;
- one pixel: NaN for GLCM (no pair), GLRLM (no line of two pixels) and elongation; variance, ranges,
  skewness and kurtosis 0, one zone of size 1, coarseness 1e6;
- flat: what tells greys or levels apart is 0 (first-order variance, entropy, skewness and kurtosis,
  GLCM contrast, entropies, Imc1 and Imc2), uniformity, correlation and MCC are 1; coarseness 1e6,
  the other NGTDM features 0;
- a line of pixels, or parts that do not touch: directions without a pair (GLCM), or without a line
  of two pixels (GLRLM), are left out of the means;
- never an infinity. Greys are 8-bit numbers, so that none of them is NaN.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.bins import Bins
from lightning_rad.modalities.radiomics.counting import real
from lightning_rad.modalities.radiomics.first_order import first_order
from lightning_rad.modalities.radiomics.glcm import glcm
from lightning_rad.modalities.radiomics.gldm import gldm
from lightning_rad.modalities.radiomics.glrlm import glrlm
from lightning_rad.modalities.radiomics.glszm import glszm
from lightning_rad.modalities.radiomics.names import FEATURES, PYRADIOMICS
from lightning_rad.modalities.radiomics.ngtdm import ngtdm
from lightning_rad.modalities.radiomics.regions import Regions, cut
from lightning_rad.modalities.radiomics.shape import shape

__all__ = ["FEATURES", "PYRADIOMICS", "Bins", "cut", "radiomics"]

DEFAULT: Final = Bins()
NEAR: Final = 2**19
"""Pixels at once on a CPU, whose numbers stay near it: a tenth faster at 224 x 224."""


@torch.no_grad()
def radiomics(
    greys: Tensor, mask: Tensor | None = None, *, bins: Bins = DEFAULT, at_once: int = 64
) -> Tensor:
    """The features of R regions, [R, 102] float64 (float32 on mps), columns as in FEATURES.

    greys: [R, h, w] uint8, a tile for each region. mask: [R, h, w] bool, the region's pixels; None:
    all of the tile. What lies outside of the mask has no influence, and neither have other regions;
    `at_once` regions at a time bound the memory, not the result. No gradient. On CUDA the host
    waits in GLRLM (for the number of runs) and in GLSZM (for the end of joining, and the number of
    zones), nowhere else. ValueError: greys not uint8, shapes that differ, a tile without pixels.
    """
    if mask is None:
        mask = torch.ones_like(greys, dtype=torch.bool)
    if greys.dtype != torch.uint8 or greys.dim() != 3 or 0 in greys.shape[1:]:
        raise ValueError(f"greys must be [R, h, w] uint8, not {list(greys.shape)} {greys.dtype}")
    if mask.dtype != torch.bool or mask.shape != greys.shape:
        raise ValueError(
            f"mask must be {list(greys.shape)} bool as greys, not {list(mask.shape)} {mask.dtype}"
        )
    if greys.device.type == "cpu":
        at_once = max(1, min(at_once, NEAR // math.prod(greys.shape[1:])))
    found = greys.new_empty(len(greys), len(FEATURES), dtype=real(greys.device))
    for first in range(0, len(greys), at_once):
        some = slice(first, first + at_once)
        found[some] = _features(Regions.of(greys[some], mask[some], bins))
    return found


def _features(regions: Regions) -> Tensor:
    families = [
        first_order(regions),
        shape(regions.mask),
        *(family(regions) for family in (glcm, glrlm, glszm, gldm, ngtdm)),
    ]
    return torch.where(regions.pixels[:, None] > 0, torch.cat(families, 1), torch.nan)
