"""Grey level run lengths: pixels of one level in a row, in four directions.

Source: pyradiomics 3.1, documentation and `cmatrices.c` of the class glrlm (IBSI section 3.7); each
feature is the mean over directions. As there, a direction counts only if some line along it holds
two pixels of the mask or more: of one row of pixels the direction along the row alone. One pixel
has no such direction: NaN.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rad.modalities.radiomics.counting import counted, whole
from lightning_rad.modalities.radiomics.distributions import emphases
from lightning_rad.modalities.radiomics.regions import Regions

_OWN: Final = {
    "gray_level_non_uniformity": "level_non_uniformity",
    "gray_level_non_uniformity_normalized": "level_non_uniformity_normalized",
    "gray_level_variance": "level_variance",
    "high_gray_level_run_emphasis": "high",
    "long_run_emphasis": "large",
    "long_run_high_gray_level_emphasis": "large_high",
    "long_run_low_gray_level_emphasis": "large_low",
    "low_gray_level_run_emphasis": "low",
    "run_entropy": "entropy",
    "run_length_non_uniformity": "size_non_uniformity",
    "run_length_non_uniformity_normalized": "size_non_uniformity_normalized",
    "run_percentage": "percentage",
    "run_variance": "size_variance",
    "short_run_emphasis": "small",
    "short_run_high_gray_level_emphasis": "small_high",
    "short_run_low_gray_level_emphasis": "small_low",
}
NAMES: Final = tuple(_OWN)


def glrlm(regions: Regions) -> Tensor:
    """[R, 16] in the order of NAMES. On CUDA the host waits four times, for how many runs are."""
    longest = max(regions.mask.shape[1:])
    runs = [_runs(regions, step, longest) for step in regions.steps]
    sizes = torch.arange(1, longest + 1, device=regions.mask.device)
    found = emphases(torch.stack(runs, 1), sizes, regions.pixels[:, None])
    some = (
        torch.stack([_lines(regions.mask, step) for step in range(4)], 1) < regions.pixels[:, None]
    )
    chosen = torch.stack([found[name] for name in _OWN.values()], 2)
    kept = torch.where(some[..., None], chosen, 0).sum(1)
    return kept / some.sum(1, keepdim=True)


def _runs(regions: Regions, step: int, longest: int) -> Tensor:
    """[R, L, longest] how many runs of each level and length there are along a step of the walk.

    Every step-th place, and then again from the next place on, goes along all lines of the
    direction one after the other; as the walk begins and ends with a row of zeros, and has one
    between lines, no run goes from one line on to the next.
    """
    walk = regions.walk
    turns = -(-walk.shape[1] // step)
    walk = pad(walk, (0, turns * step - walk.shape[1]))
    along = walk.view(-1, turns, step).mT.flatten()
    changes = (along[1:] != along[:-1]).nonzero()[:, 0]
    level = pad(along[changes + 1], (1, 0))  # the walk begins outside
    starts = pad(changes.to(whole(len(along))) + 1, (1, 0))
    lengths = starts.diff(append=starts.new_tensor([len(along)])).clamp(max=longest)
    places = (starts // (turns * step), level, lengths)
    shape = (len(regions.rows), regions.most + 1, longest + 1)
    return counted(places, shape)[:, 1:, 1:]


def _lines(mask: Tensor, direction: int) -> Tensor:
    """[R] how many lines in a direction (as of `Regions.steps`) hold a pixel."""
    if direction < 2:
        return mask.any(2 - direction).sum(1)
    if direction == 2:
        mask = mask.flip(2)
    height, width = mask.shape[1:]
    sheared = pad(mask, (0, height)).flatten(1)[:, : height * (width + height - 1)]
    return sheared.view(-1, height, width + height - 1).any(1).sum(1)
