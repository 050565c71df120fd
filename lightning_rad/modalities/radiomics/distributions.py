"""What matrices of grey level by size have in common: runs, zones and dependences.

Source: pyradiomics 3.1, documentations of glrlm, glszm and gldm (IBSI sections 3.7, 3.8, 3.11).
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(share: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """In bits, over the dimensions; a share of 0 adds 0.

    pyradiomics adds 2^-52 to each share under the logarithm, which moves the sum by as little.
    """
    return -(share * torch.where(share > 0, share, 1).log2()).sum(dims)


def emphases(counts: Tensor, sizes: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """Features of counts [..., L, S] of parts that have level 1..L and the sizes [S].

    pixels: [...] how many pixels the parts have together. Returns 16 tensors [...] by neutral
    names; each family says how it calls them. NaN where there is no part.
    """
    total = counts.sum((-2, -1))
    by_level, by_size = counts.sum(-1), counts.sum(-2)
    levels = torch.arange(1, counts.shape[-2] + 1, dtype=counts.dtype, device=counts.device)
    i2, j2 = levels**2, sizes.to(counts) ** 2

    def mean(level_weight: Tensor, size_weight: Tensor) -> Tensor:
        return (counts @ size_weight) @ level_weight / total

    one_i, one_j = torch.ones_like(i2), torch.ones_like(j2)
    return {
        "small": mean(one_i, 1 / j2),
        "large": mean(one_i, j2),
        "low": mean(1 / i2, one_j),
        "high": mean(i2, one_j),
        "small_low": mean(1 / i2, 1 / j2),
        "small_high": mean(i2, 1 / j2),
        "large_low": mean(1 / i2, j2),
        "large_high": mean(i2, j2),
        "level_non_uniformity": (by_level**2).sum(-1) / total,
        "level_non_uniformity_normalized": (by_level**2).sum(-1) / total**2,
        "size_non_uniformity": (by_size**2).sum(-1) / total,
        "size_non_uniformity_normalized": (by_size**2).sum(-1) / total**2,
        "percentage": total / pixels,
        "level_variance": _variance(by_level / total[..., None], levels),
        "size_variance": _variance(by_size / total[..., None], sizes.to(counts)),
        "entropy": entropy(counts / total[..., None, None], (-2, -1)),
    }


def _variance(share: Tensor, values: Tensor) -> Tensor:
    away = values - (share @ values)[..., None]
    return (share * away**2).sum(-1)
