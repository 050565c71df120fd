"""Grey levels of a region: numbers 1, 2, ... of bins of one width, or of a number of bins.

Source: pyradiomics 3.1, `imageoperations.getBinEdges` and its documentation. Bins are half open.
Those of one width start at a multiple of the width, at or below the region's least grey; IBSI's
"fixed bin size" (section 2.7) starts them at the least grey itself or at a bound given by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.counting import real

GREYS = 256


@dataclass(frozen=True)
class Bins:
    """How the greys 0 to 255 become levels: bins of a width in greys, or a count of bins.

    Exactly one of the two is a number. With a count, bins part the range of the region's greys and
    the last one is closed. A width below 1, or a count outside of 2 to 256: ValueError.
    """

    width: float | None = 25.0
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) == (self.count is None):
            raise ValueError("radiomics.bins: one of width and count must be null, the other not")
        if self.width is not None and not (1 <= self.width < math.inf):
            raise ValueError(f"radiomics.bins.width must be at least 1, not {self.width}")
        if self.count is not None and not 2 <= self.count <= GREYS:
            raise ValueError(f"radiomics.bins.count must be 2 to {GREYS}, not {self.count}")

    @property
    def levels(self) -> int:
        """The most levels that a region of 8-bit greys can have."""
        if self.width is None:
            assert self.count is not None
            return self.count
        return math.floor((GREYS - 1) / self.width) + 1

    def lower(self, least: Tensor, most: Tensor) -> Tensor:
        """The lower edges [R, levels] of all bins of regions with these extreme greys [R]."""
        start, step = least, torch.ones_like(least)
        if self.width is not None:
            start = least - least.remainder(self.width)
            step = (start + self.width) - start
        else:
            flat = least == most
            start = torch.where(flat, least - 0.5, least)
            step = (torch.where(flat, most + 0.5, most) - start) / self.levels
        numbers = torch.arange(self.levels, dtype=least.dtype, device=least.device)
        return numbers * step[:, None] + start[:, None]


def levels_of(greys: Tensor, mask: Tensor, bins: Bins) -> Tensor:
    """Levels 1..bins.levels [R, h, w] int16 of uint8 greys in the mask, 0 outside of it."""
    number = real(greys.device)
    least = torch.where(mask, greys, GREYS - 1).amin((1, 2)).to(number)
    most = torch.where(mask, greys, 0).amax((1, 2)).to(number)
    edges = bins.lower(least, torch.maximum(least, most))
    values = torch.arange(GREYS, dtype=number, device=greys.device).expand(len(greys), GREYS)
    table = torch.searchsorted(edges, values.contiguous(), right=True).to(torch.int16)
    rows = torch.arange(len(greys), dtype=torch.int32, device=greys.device) * GREYS
    found = table.flatten().index_select(0, (greys + rows[:, None, None]).flatten())
    return found.view(greys.shape) * mask
