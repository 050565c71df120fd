"""Connected parts of one grey level (8 neighbours), of many regions at once.

Rows are cut into runs of one level, and runs that touch are joined until none is left to join:
each round every part takes the least part it touches for its own, and chains of such are followed
to their ends. Both loops ask the host whether they are done; rounds are few (a handful for chests,
under 20 for a spiral of one pixel), as in each all parts but the locally least ones vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def zones(levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of [R, h, w], 0 outside of a region: the region, level and size of each of Z zones, [Z]."""
    width = levels.shape[2] + 1
    walk = pad(levels, (0, 1, 1, 1)).flatten()
    each = (levels.shape[1] + 2) * width
    equal = {step: _equal(walk, step) for step in (1, width - 1, width, width + 1)}
    beside, above = equal[1], equal[width]
    starts = (~beside).nonzero()[:, 0]
    run = (~beside).cumsum(0, dtype=torch.int32) - 1
    inside = walk > 0
    # of many contacts of two runs one is enough: where the one before touches too, or a third
    # pixel joins the two anyway, there is no need of it
    touching = {
        width: above & inside & ~(beside & _later(above, 1)),
        width + 1: equal[width + 1] & inside & ~beside & ~above,
        width - 1: equal[width - 1] & inside & ~above & ~_sooner(beside, 1),
    }
    places = {step: touch.nonzero()[:, 0] for step, touch in touching.items()}
    one = torch.cat([run[place] for place in places.values()]).long()
    other = torch.cat([run[place - step] for step, place in places.items()]).long()
    part = _joined(len(starts), one, other)
    lengths = starts.diff(append=starts.new_tensor([len(walk)]))
    sizes = torch.zeros_like(starts).index_add_(0, part, lengths)
    level = walk[starts]
    kept = ((part == torch.arange(len(part), device=part.device)) & (level > 0)).nonzero()[:, 0]
    return starts[kept] // each, level[kept], sizes[kept]


def _joined(parts: int, one: Tensor, other: Tensor) -> Tensor:
    """[parts] the least part that each is joined to, given pairs of parts that touch."""
    least = torch.arange(parts, device=one.device)
    while len(one):
        least.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        least = _followed(least)
        one, other = least[one], least[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return least


def _followed(least: Tensor) -> Tensor:
    """Every chain of joined parts followed to its end; each turn halves their lengths."""
    while True:
        further = least[least]
        if torch.equal(further, least):
            return least
        least = further


def _equal(walk: Tensor, step: int) -> Tensor:
    """Whether a place has the number of the one a step before it; the first ones have not."""
    return pad(walk[step:] == walk[:-step], (step, 0))


def _later(flags: Tensor, step: int) -> Tensor:
    return pad(flags[:-step], (step, 0))


def _sooner(flags: Tensor, step: int) -> Tensor:
    return pad(flags[step:], (0, step))
