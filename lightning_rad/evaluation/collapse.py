"""Signs of collapse, read from features alone. Shapes: N rows, D features."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

_UNIFORMITY_ROWS = 2048


def rankme(features_ND: Tensor) -> float:
    """Effective rank: exp of the entropy of the singular values divided by their sum.

    Features of rank r with equal singular values give r; a constant non-zero vector gives 1, zero
    features give 0, no row or a value that is not finite gives NaN. Not centred (Garrido et al.,
    "RankMe", ICML 2023, equations 1 and 2, without their 1e-7 inside the logarithm).
    """
    x_ND = features_ND.double()
    if not x_ND.numel() or not bool(x_ND.isfinite().all()):
        return math.nan
    gram = x_ND.T @ x_ND if x_ND.shape[0] > x_ND.shape[1] else x_ND @ x_ND.T
    # rounding of the Gram matrix adds about 1e-8 of the largest to a singular value
    singular = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    if not float(singular.sum()):
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def uniformity(features_ND: Tensor) -> float:
    """log of the mean of exp(-2 |x - y|^2) over pairs of rows on the unit sphere.

    0 is total collapse, about -4 is uniform in many dimensions. Over all pairs of at most 2048
    rows, evenly spaced; NaN with fewer than two rows. (Wang and Isola, ICML 2020, equation 3.)
    """
    step = max(1, math.ceil(len(features_ND) / _UNIFORMITY_ROWS))
    x_ND = normalize(features_ND[::step].double(), dim=1)
    if len(x_ND) < 2:
        return math.nan
    norm_N = x_ND.square().sum(1)
    squared_NN = (norm_N[:, None] + norm_N - 2.0 * x_ND @ x_ND.T).clamp(min=0.0)
    closeness_NN = (-2.0 * squared_NN).exp().fill_diagonal_(0.0)
    return math.log(float(closeness_NN.sum()) / (len(x_ND) * (len(x_ND) - 1)))


def alignment(features_ND: Tensor, group_N: Tensor) -> float:
    """Mean squared distance, on the unit sphere, of two rows of one group; 0 is perfect.

    group_N: int64 numbers 0, 1, ...; over all unordered pairs within groups, each pair counted
    once; NaN where no group has two rows. With views of one image as groups this is the
    alignment of Wang and Isola (ICML 2020, equation 2); with the images of one patient, all that
    unaugmented evaluation data allow, it tells how much closer they lie than others.
    """
    x_ND = normalize(features_ND.double(), dim=1)
    count = torch.bincount(group_N)
    if not len(count) or int(count.max()) < 2:
        return math.nan
    # sum over i < j of |x_i - x_j|^2  =  n sum |x_i|^2 - |sum x_i|^2
    summed = x_ND.new_zeros(len(count), x_ND.shape[1]).index_add_(0, group_N, x_ND)
    norms = x_ND.new_zeros(len(count)).index_add_(0, group_N, x_ND.square().sum(1))
    distance = (count * norms - summed.square().sum(1)).clamp(min=0.0).sum()
    return float(distance / (count * (count - 1) / 2).sum())


def feature_std(features_ND: Tensor) -> float:
    """Mean over dimensions of the standard deviation of unit-norm rows, times sqrt(D).

    0 is total collapse, 1 is what isotropic features give (Chen and He, "SimSiam", CVPR 2021,
    section 4.1). NaN without rows.
    """
    if not len(features_ND):
        return math.nan
    x_ND = normalize(features_ND.double(), dim=1)
    return float(x_ND.std(0, correction=0).mean() * math.sqrt(x_ND.shape[1]))
