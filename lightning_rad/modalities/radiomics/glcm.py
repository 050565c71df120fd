"""Grey level co-occurrence: how often two levels are neighbours, in four directions.

Source: pyradiomics 3.1, documentation of the class glcm (IBSI section 3.6), symmetrical matrices
at distance 1; each feature is the mean over the directions that have a pair. Where pyradiomics
divides by a variance or an entropy of 0 it says what then holds: correlation 1, Imc1 and Imc2 0,
MCC 1 in a flat region. A region without any pair: NaN.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lightning_rad.modalities.radiomics.counting import counted
from lightning_rad.modalities.radiomics.distributions import entropy
from lightning_rad.modalities.radiomics.regions import Regions

NAMES: Final = (
    "autocorrelation",
    "cluster_prominence",
    "cluster_shade",
    "cluster_tendency",
    "contrast",
    "correlation",
    "difference_average",
    "difference_entropy",
    "difference_variance",
    "id",
    "idm",
    "idmn",
    "idn",
    "imc1",
    "imc2",
    "inverse_variance",
    "joint_average",
    "joint_energy",
    "joint_entropy",
    "mcc",
    "maximum_probability",
    "sum_average",
    "sum_entropy",
    "sum_squares",
)
SQUARINGS: Final = 16


def glcm(regions: Regions) -> Tensor:
    """[R, 24] in the order of NAMES."""
    r, wide = len(regions.rows), regions.most + 1
    pairs = [counted((regions.rows, *pair), (r, wide, wide)) for pair in regions.pairs()]
    counts = torch.stack(pairs, 1)[:, :, 1:, 1:]
    counts = counts + counts.mT
    total = counts.sum((2, 3))
    some = (total > 0).to(counts)
    p = counts / total.clamp(min=1)[..., None, None]
    present = regions.populations > 0
    levels = torch.arange(1, wide, dtype=p.dtype, device=p.device)
    most = (present * levels).amax(1)[:, None]
    features = _of_pairs(p, levels) | _of_differences(p, most) | _of_sums(p)
    features["mcc"] = torch.where(present.sum(1) > 1, _mcc(p).mT, 1).mT
    chosen = torch.stack([features[name] for name in NAMES], 2)
    return (chosen * some[..., None]).sum(1) / some.sum(1)[:, None]


def _of_pairs(p: Tensor, levels: Tensor) -> dict[str, Tensor]:
    """Of the matrices [R, 4, L, L] as they are; symmetrical, so that both margins are one."""
    margin = p.sum(3)
    mean = margin @ levels
    away = levels - mean[..., None]
    variance = (margin * away**2).sum(2)
    joint, alone = entropy(p, (2, 3)), entropy(margin, 2)
    covariance = torch.einsum("rai,raij,raj->ra", away, p, away)
    # entropies of the pair, were its two independent: HXY1 = HXY2 = HX + HY = 2 HX
    gained = (2 * alone - joint).clamp(min=0)
    return {
        "autocorrelation": torch.einsum("i,raij,j->ra", levels, p, levels),
        "correlation": torch.where(variance > 0, covariance / _not_0(variance), 1),
        "imc1": torch.where(alone > 0, (joint - 2 * alone) / _not_0(alone), 0),
        "imc2": (-torch.expm1(-2 * gained)).sqrt(),
        "joint_average": mean,
        "joint_energy": (p**2).sum((2, 3)),
        "joint_entropy": joint,
        "maximum_probability": p.amax((2, 3)),
        "sum_squares": variance,
    }


def _of_differences(p: Tensor, most: Tensor) -> dict[str, Tensor]:
    """Of the distribution of the distance of two levels; most: [R, 1], the region's highest one."""
    index = torch.arange(p.shape[-1], device=p.device)
    share = _gathered(p, (index[:, None] - index).abs(), p.shape[-1])
    k = index.to(p)
    average = share @ k
    square = k[1:] ** 2
    return {
        "contrast": share @ k**2,
        "difference_average": average,
        "difference_entropy": entropy(share, 2),
        "difference_variance": (share * (k - average[..., None]) ** 2).sum(2),
        "id": share @ (1 / (1 + k)),
        "idm": share @ (1 / (1 + k**2)),
        "idmn": (share / (1 + (k / most[..., None]) ** 2)).sum(2),
        "idn": (share / (1 + k / most[..., None])).sum(2),
        "inverse_variance": share[..., 1:] @ (1 / square),
    }


def _of_sums(p: Tensor) -> dict[str, Tensor]:
    """Of the distribution of the sum of two levels."""
    index = torch.arange(p.shape[-1], device=p.device)
    share = _gathered(p, index[:, None] + index, 2 * p.shape[-1] - 1)
    k = torch.arange(2, 2 * p.shape[-1] + 1, dtype=p.dtype, device=p.device)
    average = share @ k
    away = k - average[..., None]
    return {
        "cluster_prominence": (share * away**4).sum(2),
        "cluster_shade": (share * away**3).sum(2),
        "cluster_tendency": (share * away**2).sum(2),
        "sum_average": average,
        "sum_entropy": entropy(share, 2),
    }


def _gathered(p: Tensor, index: Tensor, size: int) -> Tensor:
    """[R, 4, size], the matrices' numbers added up by an index [L, L]."""
    found = p.new_zeros(*p.shape[:2], size)
    return found.index_add_(2, index.flatten(), p.flatten(2))


def _mcc(p: Tensor) -> Tensor:
    """[R, 4] the second largest correlation coefficient of any two functions of the two levels.

    The square root of the second largest eigenvalue of Q. With a symmetrical matrix that is the
    second largest size of an eigenvalue of S = D^-1/2 P D^-1/2, D the margins, whose first one is 1
    with eigenvector D^1/2. With that taken off, squares and squares of squares of S leave the
    eigenvectors that are wanted. Unlike `eigvalsh` it does not wait for the host on CUDA.
    """
    root = p.sum(3).sqrt()
    scale = torch.where(root > 0, 1 / _not_0(root), 0)
    s = scale[..., :, None] * p * scale[..., None, :] - root[..., :, None] * root[..., None, :]
    power = square = s @ s
    for _ in range(SQUARINGS):
        size = power.abs().amax((2, 3), keepdim=True)
        power = power / _not_0(size)
        power = power @ power
    weight = power.square().sum((2, 3))
    found = ((power @ square) * power).sum((2, 3)) / _not_0(weight)
    return found.clamp(min=0).sqrt()


def _not_0(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)
