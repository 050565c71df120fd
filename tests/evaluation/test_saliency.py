"""Measures of attention against their definitions written out, and in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from lightning_rad.evaluation.saliency import auc_judd, cc, kld, nss, sim

Floats = npt.NDArray[np.float64]
Measure = Callable[[Any, Any], Floats]
N, S, K = 4, 6, 9
OF_MAPS: list[Measure] = [cc, sim, kld]
OF_POINTS: list[Measure] = [nss, auc_judd]


def maps(seed: int = 0, rows: int = N) -> Floats:
    return np.random.default_rng(seed).gamma(0.7, size=(rows, S, S)).astype(np.float64)


def points(seed: int = 1, rows: int = N) -> Floats:
    """Fixations of all rows, several in one cell, some missing, some outside."""
    made = np.random.default_rng(seed).uniform(0, 1, (rows, K, 2)) ** 2
    made[:, 1] = made[:, 0]
    made[0, 5:] = np.nan
    made[1, 4] = (1.07, 0.5)
    made[1, 5] = (0.5, -0.1)
    return made


def cells(row: Floats) -> list[tuple[int, int]]:
    """(row, column) of each fixation inside, in the order of time."""
    return [
        (math.floor(y * S), math.floor(x * S)) for x, y in row.tolist() if 0 <= x < 1 and 0 <= y < 1
    ]


def literal_cc(p: Floats, q: Floats) -> float:
    a, b = p.flatten().tolist(), q.flatten().tolist()
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    below = math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))
    return top / below


def literal_sim(p: Floats, q: Floats) -> float:
    a, b = p.flatten().tolist(), q.flatten().tolist()
    return sum(min(x / sum(a), y / sum(b)) for x, y in zip(a, b, strict=True))


def literal_kld(p: Floats, q: Floats) -> float:
    a, b = p.flatten().tolist(), q.flatten().tolist()
    a, b = [x / sum(a) for x in a], [y / sum(b) for y in b]
    return sum(y * math.log(y / x) for x, y in zip(a, b, strict=True))


def literal_nss(p: Floats, row: Floats) -> float:
    values = p.flatten().tolist()
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
    found = [(p[r, c] - mean) / deviation for r, c in cells(row)]
    return float(sum(found) / len(found))


def literal_auc(p: Floats, row: Floats) -> float:
    """By comparing every fixation with every cell that has none."""
    looked = cells(row)
    others = [p[r, c] for r in range(S) for c in range(S) if (r, c) not in looked]
    wins = 0.0
    for r, c in looked:
        wins += sum(1.0 if p[r, c] > x else 0.5 if p[r, c] == x else 0.0 for x in others)
    return wins / len(looked) / len(others)


@pytest.mark.parametrize(
    ("measure", "literal"), [(cc, literal_cc), (sim, literal_sim), (kld, literal_kld)]
)
def test_measures_of_two_maps_are_as_written_out(measure: Measure, literal: Any) -> None:
    p, q = maps(0) + 0.01, maps(7) + 0.01
    want = [literal(a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(measure(p, q), want, rtol=1e-9)


@pytest.mark.parametrize(("measure", "literal"), [(nss, literal_nss), (auc_judd, literal_auc)])
def test_measures_of_fixations_are_as_written_out(measure: Measure, literal: Any) -> None:
    tied = np.round(maps(0), 1) + 0.1
    want = [literal(a, b) for a, b in zip(tied, points(), strict=True)]
    np.testing.assert_allclose(measure(tied, points()), want, rtol=1e-9)


def test_auc_of_judd_is_the_area_under_a_curve_of_weighted_cells() -> None:
    p, row = maps(3)[0], points()[2]
    looked = cells(row)
    label = [int((r, c) in looked) for r in range(S) for c in range(S)]
    weight = [max(looked.count((r, c)), 1) for r in range(S) for c in range(S)]
    want = roc_auc_score(label, p.flatten(), sample_weight=weight)
    assert auc_judd(p[None], row[None])[0] == pytest.approx(want, rel=1e-12)


def test_a_map_of_itself_is_perfect() -> None:
    q = maps(2)
    np.testing.assert_allclose(cc(q, q), 1.0)
    np.testing.assert_allclose(sim(q, q), 1.0)
    np.testing.assert_allclose(kld(q, q), 0.0, atol=1e-12)


def test_a_map_of_the_fixated_cells_has_auc_1_and_its_opposite_0() -> None:
    looked = np.zeros((N, S, S))
    for row, seen in enumerate(points()):
        for place in cells(seen):
            looked[row][place] = 1.0
    np.testing.assert_array_equal(auc_judd(looked, points()), 1.0)
    np.testing.assert_array_equal(auc_judd(1.0 - looked, points()), 0.0)


def test_a_flat_map_foretells_nothing() -> None:
    flat = np.full((N, S, S), 0.3)
    q = maps(2)
    np.testing.assert_array_equal(cc(flat, q), 0.0)
    np.testing.assert_array_equal(cc(q, flat), 0.0)
    np.testing.assert_array_equal(nss(flat, points()), 0.0)
    np.testing.assert_array_equal(auc_judd(flat, points()), 0.5)
    assert np.isfinite(kld(flat, q)).all()


def test_uniform_against_a_single_cell_is_the_logarithm_of_the_cells() -> None:
    one = np.zeros((1, S, S))
    one[0, 2, 3] = 5.0
    flat = np.ones((1, S, S))
    assert kld(flat, one)[0] == pytest.approx(math.log(S * S))
    assert sim(flat, one)[0] == pytest.approx(1 / (S * S))
    assert 30 < kld(one, flat)[0] < math.inf  # impossible is dear, not infinite


@pytest.mark.parametrize("measure", OF_MAPS)
def test_scale_does_not_matter_to_maps(measure: Measure) -> None:
    np.testing.assert_allclose(measure(1e-6 * maps(0), 7 * maps(2)), measure(maps(0), maps(2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("measure", OF_MAPS + OF_POINTS)
def test_a_map_that_is_none_has_no_score_and_spoils_no_other(measure: Measure, bad: float) -> None:
    p = maps(0)
    p[1, 2, 2] = bad
    other: Floats = maps(2) if measure in OF_MAPS else points()
    got = measure(p, other)
    np.testing.assert_array_equal(np.isnan(got), [False, True, False, False])
    np.testing.assert_array_equal(got[2:], measure(maps(0), other)[2:])


@pytest.mark.parametrize("measure", OF_MAPS + OF_POINTS)
def test_a_row_without_gaze_has_no_score(measure: Measure) -> None:
    other: Floats = maps(2) if measure in OF_MAPS else points()
    other[2] = 0.0 if measure in OF_MAPS else math.nan
    got = measure(maps(0), other)
    np.testing.assert_array_equal(np.isnan(got), [False, False, True, False])


def test_a_black_prediction_has_no_score() -> None:
    black = np.zeros((N, S, S))
    assert all(np.isnan(m(black, maps(2))).all() for m in OF_MAPS)
    assert all(np.isnan(m(black, points())).all() for m in OF_POINTS)


def test_no_rows_are_no_scores() -> None:
    assert cc(maps(rows=0), maps(rows=0)).shape == (0,)
    assert auc_judd(maps(rows=0), np.zeros((0, 0, 2))).shape == (0,)
    assert np.isnan(nss(maps(0), np.zeros((N, 0, 2)))).all()


def test_a_fixation_just_inside_the_border_is_in_the_last_cell() -> None:
    edge = np.nextafter(np.float32(1), np.float32(0))
    p = np.zeros((1, S, S))
    p[0, S - 1, S - 1] = 1.0
    assert auc_judd(p, np.array([[[edge, edge]]], np.float32))[0] == 1.0
