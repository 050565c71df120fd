"""Neighbouring grey tone difference: a pixel's level against the mean of its 8 neighbours'.

Source: pyradiomics 3.1, documentation and `cmatrices.c` of the class ngtdm (IBSI section 3.10),
with neighbours in the mask alone. As in that code a pixel without any counts with a difference of
0; IBSI leaves it out. Where pyradiomics would divide by 0: coarseness 1e6, and the others 0.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.counting import counted
from lightning_rad.modalities.radiomics.regions import Regions

NAMES: Final = ("busyness", "coarseness", "complexity", "contrast", "strength")
COARSEST: Final = 1e6


def ngtdm(regions: Regions) -> Tensor:
    """[R, 5] in the order of NAMES."""
    s, p = _differences(regions), regions.populations / regions.pixels[:, None]
    i = torch.arange(1, regions.most + 1, dtype=p.dtype, device=p.device)
    present = p > 0
    both = present[:, :, None] & present[:, None]
    apart = (i[:, None] - i).abs()
    ip, ps, sums = i * p, p * s, p[:, :, None] + p[:, None]
    weighted, total, levels = ps.sum(1), s.sum(1), present.sum(1)
    spread = (p[:, :, None] * p[:, None] * apart**2).sum((1, 2))
    busy = ((ip[:, :, None] - ip[:, None]).abs() * both).sum((1, 2))
    mixed = apart * (ps[:, :, None] + ps[:, None]) / torch.where(both, sums, 1) * both
    features = {
        "busyness": _ratio(weighted, busy, 0),
        "coarseness": _ratio(torch.ones_like(weighted), weighted, COARSEST),
        "complexity": mixed.sum((1, 2)) / regions.pixels,
        "contrast": _ratio(spread * total / regions.pixels, levels * (levels - 1), 0),
        "strength": _ratio((sums * apart**2 * both).sum((1, 2)), total, 0),
    }
    return torch.stack([features[name] for name in NAMES], 1)


def _differences(regions: Regions) -> Tensor:
    """[R, L] for each level the sum of |level - mean of the neighbours' levels|.

    With c neighbours that is |c level - sum| / c: whole numbers are added up for each c first.
    """
    inside = (regions.walk > 0).to(torch.int16)
    number, total = torch.zeros_like(inside), torch.zeros_like(inside)
    for step, (here, there) in zip(regions.steps, regions.pairs(), strict=True):
        total[:, :-step] += there
        total[:, step:] += here
        number[:, :-step] += inside[:, step:]
        number[:, step:] += inside[:, :-step]
    away = (regions.walk * number - total).abs()
    shape = (len(regions.rows), regions.most + 1, 9)
    sums = counted((regions.rows, regions.walk, number), shape, away)[:, 1:, 1:]
    return sums @ (1 / torch.arange(1, 9, dtype=sums.dtype, device=sums.device))


def _ratio(over: Tensor, under: Tensor, otherwise: float) -> Tensor:
    return torch.where(under > 0, over / torch.where(under > 0, under, 1), otherwise)
