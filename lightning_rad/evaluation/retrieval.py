"""Finding a study's report by its image, and back, among the studies of a split.

Pure functions. Shape letters: N studies, which are the queries and the pool, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.evaluation.bootstrap import Estimate, Floats, Ints, PatientBootstrap

KS: Final = (1, 5, 10)
"""How many candidates are looked at."""

_BLOCK: Final = 512

_TIE: Final = 1e-6
"""Cosines that differ by no more count as equal: beyond it is the rounding of float32 features."""

_NEVER: Final = 2**62


def recall(
    image_ND: Tensor, text_ND: Tensor, hash_N: Tensor, ks: Sequence[int] = KS
) -> dict[str, Floats]:
    """Whether each study's query hits among the first k by cosine: [N], 1 or 0.

    `i2t@k`: the image asks for the report; `t2i@k`: the report asks for the image. A hit is any
    candidate of the query's hash, so that equal reports are not each other's errors. Ties count
    against: the rank is one more than the candidates of other hashes that score as high as the
    best match or higher. An embedding that is not finite finds nothing and is found by none.
    `chance@k`: the probability of a hit in random order, the same both ways.
    """
    places = {
        "i2t": _places(image_ND, text_ND, hash_N),
        "t2i": _places(text_ND, image_ND, hash_N),
    }
    hits = {
        f"{way}@{k}": (place_N <= k).astype(np.float64)
        for way, place_N in places.items()
        for k in ks
    }
    return hits | _chance(hash_N.cpu().numpy(), ks)


def intervals(
    per_query: Mapping[str, Floats], patient_N: Ints, bootstrap: PatientBootstrap, *, seed: int
) -> dict[str, Estimate]:
    """The mean of each over the queries, with an interval over resampled patients.

    per_query: [N] each, as from `recall`. The pool is fixed: a resample weighs the queries and
    leaves the candidates as they are, so the interval is one for this pool.
    """
    values_NK = np.stack(list(per_query.values()), axis=1)
    estimates = bootstrap.of_sums(
        np.concatenate([np.ones((len(values_NK), 1)), values_NK], axis=1),
        patient_N,
        _means,
        seed=seed,
    )
    return dict(zip(per_query, estimates, strict=True))


def _places(query_ND: Tensor, pool_ND: Tensor, hash_N: Tensor) -> Ints:
    """[N] the place of each query's best match, 1 the first; in float64, block by block."""
    query_ND, pool_ND = (normalize(x.double(), dim=1) for x in (query_ND, pool_ND))
    places = []
    for start in range(0, len(hash_N), _BLOCK):
        rows = slice(start, start + _BLOCK)
        score_RN = query_ND[rows] @ pool_ND.T
        match_RN = hash_N[rows, None] == hash_N[None]
        score_RN = score_RN.masked_fill(score_RN.isnan(), -torch.inf)
        best_R1 = score_RN.masked_fill(~match_RN, -torch.inf).amax(1, keepdim=True)
        ahead_R = ((score_RN >= best_R1 - _TIE) & ~match_RN).sum(1)
        places.append((1 + ahead_R).masked_fill(best_R1[:, 0] == -torch.inf, _NEVER))
    joined: Ints = torch.cat([hash_N[:0], *places]).cpu().numpy()
    return joined


def _chance(hash_N: Ints, ks: Sequence[int]) -> dict[str, Floats]:
    """1 - C(N - m, k) / C(N, k), m being the matches of a query."""
    _, which_N, counts = np.unique(hash_N, return_inverse=True, return_counts=True)
    pool, matches_N = len(hash_N), counts[which_N]
    result = {}
    for k in ks:
        drawn = np.arange(min(k, pool))
        missed_NK = np.maximum(pool - matches_N[:, None] - drawn, 0) / (pool - drawn)
        result[f"chance@{k}"] = 1.0 - missed_NK.prod(1)
    return result


def _means(sums_RK: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        means: Floats = sums_RK[:, 1:] / sums_RK[:, :1]
    return means
