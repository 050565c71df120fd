from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.evaluation.collapse import alignment, feature_std, rankme, uniformity


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize(("rows", "dims"), [(200, 32), (20, 64)])
def test_rankme_of_features_that_span_r_equal_directions_is_r(
    rank: int, rows: int, dims: int
) -> None:
    left = torch.linalg.qr(_random(rows, rank).double()).Q
    right = torch.linalg.qr(_random(dims, rank, seed=1).double()).Q
    assert rankme(left @ right.T * 7) == pytest.approx(rank, abs=1e-3)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    x = _random(50, 12) * torch.arange(1, 13)
    values = torch.linalg.svdvals(x.double())
    share = values / values.sum()
    assert rankme(x) == pytest.approx(float((-(share * share.log()).sum()).exp()), rel=1e-9)


def test_collapsed_features_are_told_from_spread_ones() -> None:
    spread = _random(300, 16)
    point = torch.ones(300, 16) + 1e-4 * spread
    assert rankme(spread) > 14
    assert rankme(point) < 1.1
    assert uniformity(spread) < -3
    assert uniformity(point) > -1e-3
    assert feature_std(spread) == pytest.approx(1.0, abs=0.02)
    assert feature_std(point) < 1e-3


def test_uniformity_and_alignment_are_means_over_pairs() -> None:
    x, group = _random(24, 5), torch.arange(24) % 9
    unit = normalize(x.double(), dim=1)
    pairs = list(itertools.combinations(range(24), 2))
    distance = {p: float((unit[p[0]] - unit[p[1]]).square().sum()) for p in pairs}
    closeness = sum(math.exp(-2 * d) for d in distance.values()) / len(pairs)
    assert uniformity(x) == pytest.approx(math.log(closeness), abs=1e-12)
    same = [d for (i, j), d in distance.items() if group[i] == group[j]]
    assert alignment(x, group) == pytest.approx(sum(same) / len(same), abs=1e-12)


def test_uniformity_of_many_rows_is_estimated_from_a_part() -> None:
    x = _random(9000, 8)
    assert uniformity(x) == pytest.approx(uniformity(x[:2000]), abs=0.05)


def test_equal_pairs_are_perfectly_aligned_and_no_pairs_have_no_alignment() -> None:
    x = _random(6, 5)
    assert alignment(x.repeat(2, 1), torch.arange(6).repeat(2)) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(alignment(x, torch.arange(6)))


def test_no_rows_give_nan_zero_features_give_no_rank_and_nan_stays_nan() -> None:
    empty = torch.empty(0, 4)
    for monitor in (rankme, uniformity, feature_std):
        assert math.isnan(monitor(empty))
    assert math.isnan(alignment(empty, torch.empty(0, dtype=torch.int64)))
    assert rankme(torch.zeros(5, 4)) == 0.0
    assert math.isnan(rankme(torch.full((5, 4), math.nan)))
