"""First-order statistics of a region's greys, from its histogram alone.

Source: pyradiomics 3.1, documentation of the class firstorder (IBSI sections 3.3 and 3.4), with
voxelArrayShift 0 and pixels of area 1. Kurtosis is that of pyradiomics: 3 for a normal distribution
(IBSI and others take 3 off). Variance is divided by the number of pixels. Percentiles interpolate
linearly between the two nearest greys. Entropy and uniformity are of the levels, all else of the
greys. Flat region: skewness and kurtosis 0. The robust mean absolute deviation of two pixels with
different greys, of which none lies between the percentiles, is NaN.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.bins import GREYS
from lightning_rad.modalities.radiomics.counting import counted
from lightning_rad.modalities.radiomics.distributions import entropy
from lightning_rad.modalities.radiomics.regions import Regions

NAMES: Final = (
    "10_percentile",
    "90_percentile",
    "energy",
    "entropy",
    "interquartile_range",
    "kurtosis",
    "maximum",
    "mean_absolute_deviation",
    "mean",
    "median",
    "minimum",
    "range",
    "robust_mean_absolute_deviation",
    "root_mean_squared",
    "skewness",
    "total_energy",
    "uniformity",
    "variance",
)
PERCENTS: Final = (10.0, 25.0, 50.0, 75.0, 90.0)


def first_order(regions: Regions) -> Tensor:
    """[R, 18] in the order of NAMES."""
    greys = torch.where(regions.mask, regions.greys.to(torch.int16), GREYS).flatten(1)
    histogram = counted((regions.rows, greys), (len(greys), GREYS + 1))[:, :GREYS]
    values = torch.arange(GREYS, dtype=histogram.dtype, device=histogram.device)
    pixels = regions.pixels
    p10, p25, p50, p75, p90 = _percentiles(histogram, pixels).unbind(1)
    least, most = (order.to(histogram) for order in _ranked(histogram, _ends(pixels)).unbind(1))
    mean = histogram @ values / pixels
    away = values - mean[:, None]
    second, third, fourth = ((histogram * away**power).sum(1) / pixels for power in (2, 3, 4))
    spread = torch.where(second > 0, second, 1)
    energy = histogram @ values**2
    middle = histogram * ((values >= p10[:, None]) & (values <= p90[:, None]))
    share = regions.populations / pixels[:, None]
    features = {
        "10_percentile": p10,
        "90_percentile": p90,
        "energy": energy,
        "entropy": entropy(share, 1),
        "interquartile_range": p75 - p25,
        "kurtosis": fourth / spread**2,
        "maximum": most,
        "mean_absolute_deviation": (histogram * away.abs()).sum(1) / pixels,
        "mean": mean,
        "median": p50,
        "minimum": least,
        "range": most - least,
        "robust_mean_absolute_deviation": _mean_deviation(middle, values),
        "root_mean_squared": (energy / pixels).sqrt(),
        "skewness": third / spread**1.5,
        "total_energy": energy,
        "uniformity": (share**2).sum(1),
        "variance": second,
    }
    return torch.stack([features[name] for name in NAMES], 1)


def _mean_deviation(histogram: Tensor, values: Tensor) -> Tensor:
    """[R] mean distance of the values from their mean."""
    number = histogram.sum(1)
    away = values - (histogram @ values / number)[:, None]
    return (histogram * away.abs()).sum(1) / number


def _ends(pixels: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(pixels), pixels - 1], 1)


def _ranked(histogram: Tensor, ranks: Tensor) -> Tensor:
    """[R, K] the greys at these ranks (0 is the least grey) of each region's sorted pixels."""
    found = torch.searchsorted(histogram.cumsum(1), ranks.contiguous(), right=True)
    return found.clamp(max=GREYS - 1)


def _percentiles(histogram: Tensor, pixels: Tensor) -> Tensor:
    """[R, 5] with numpy's linear interpolation."""
    last = (pixels - 1).clamp(min=0)
    place = torch.stack([last * (percent / 100) for percent in PERCENTS], 1)
    below = place.floor()
    above = torch.minimum(below + 1, last[:, None])
    low, high = _ranked(histogram, below), _ranked(histogram, above)
    return low + (high - low) * (place - below)
