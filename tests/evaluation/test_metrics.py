from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_rad.evaluation.bootstrap import PatientBootstrap, clusters
from lightning_rad.evaluation.metrics import Ranking, measure

POINT = PatientBootstrap(samples=0)


@st.composite
def _rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with few or many ties, labels of both classes, integer weights of both classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(2, 60))
    grid = draw(st.sampled_from([1, 2, 5, 10**9]))
    score = rng.integers(0, grid, n, endpoint=True) / grid
    label = (rng.random(n) < draw(st.floats(0.05, 0.95))).astype(float)
    label[rng.choice(n, 2, replace=False)] = [0.0, 1.0]
    weight = rng.integers(0, 4, n)
    weight[label.argmax()] = weight[label.argmin()] = 1
    return score, label, weight


@given(_rows())
@settings(deadline=None, max_examples=150)
def test_auroc_and_ap_equal_scikit_learn_with_ties_weights_and_repeats(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    score, label, weight = rows
    again, repeated = np.repeat(score, weight), np.repeat(label, weight)
    fraction = np.random.default_rng(0).random(len(score)) + 0.1
    ours = _metrics(score, label, np.stack([np.ones(len(score)), weight, fraction]))
    once = _metrics(again, repeated, np.ones((1, len(again))))
    for metric, theirs in enumerate((roc_auc_score, average_precision_score)):
        plain, weighted, real = ours[metric]
        assert plain == pytest.approx(theirs(label, score), abs=1e-12)
        assert weighted == pytest.approx(theirs(label, score, sample_weight=weight), abs=1e-12)
        assert weighted == pytest.approx(theirs(repeated, again), abs=1e-12)
        assert weighted == pytest.approx(once[metric][0], abs=1e-12)
        assert real == pytest.approx(theirs(label, score, sample_weight=fraction), abs=1e-12)


def _metrics(
    score: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return Ranking(score, label, np.arange(len(score))).weigh(weight)


def _sample(rows: int, findings: int, patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = (rng.random((rows, findings)) < 0.3).astype(float)
    return rng.normal(size=(rows, findings)) + labels, labels, rng.integers(1, patients, rows)


def test_an_unknown_label_leaves_its_row_out_of_that_finding_only() -> None:
    scores, labels, patient = _sample(80, 3, 40)
    unknown = np.random.default_rng(1).random(labels.shape) < 0.4
    labels[unknown] = np.nan
    result = measure(scores, labels, clusters(patient), POINT, seed=0)
    for c in range(3):
        known = ~unknown[:, c]
        y, s = labels[known, c], scores[known, c]
        assert result.auroc.values[c] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert result.ap.values[c] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert result.auroc.macro().value == pytest.approx(result.auroc.values.mean(), abs=1e-15)


def test_findings_without_two_classes_have_no_metric_and_no_part_in_the_macro():
    scores, labels, patient = _sample(60, 5, 30)
    labels[:, 1], labels[:, 2], labels[:, 3] = np.nan, 0.0, 1.0
    labels[5:9, 3] = np.nan
    result = measure(scores, labels, clusters(patient), PatientBootstrap(50), seed=0)
    for metric in (result.auroc, result.ap):
        assert np.isnan(metric.values).tolist() == [False, True, True, True, False]
        assert metric.macro_findings == 2
        assert metric.macro().value == pytest.approx(metric.values[[0, 4]].mean(), abs=1e-15)
        for column in (1, 2, 3):
            assert np.isnan(metric.finding(column).low)
            assert metric.finding(column).dropped == 50


@pytest.mark.parametrize(("rows", "findings"), [(0, 3), (5, 0), (0, 0), (1, 2)])
def test_no_rows_or_no_findings_give_nan_and_no_error(rows: int, findings: int) -> None:
    result = measure(
        np.zeros((rows, findings)),
        np.zeros((rows, findings)),
        clusters(np.ones(rows, np.int64)),
        PatientBootstrap(20),
        seed=0,
    )
    assert np.isnan(result.auroc.values).all()
    assert np.isnan(result.auroc.macro().value)
    assert result.auroc.replicates.shape == (20, findings)


def test_a_score_that_is_not_finite_is_no_score() -> None:
    scores, labels, patient = _sample(40, 2, 20)
    scores[3, 0] = np.nan
    result = measure(scores, labels, clusters(patient), POINT, seed=0)
    assert np.isnan(result.auroc.values).tolist() == [True, False]
    labels[3, 0] = np.nan  # the row is not known to this finding: its score does not matter
    result = measure(scores, labels, clusters(patient), POINT, seed=0)
    assert not np.isnan(result.auroc.values).any()


def test_a_label_that_is_neither_present_nor_absent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 \(present\), 0 \(absent\) or NaN"):
        Ranking(np.zeros(3), np.array([0.0, 0.5, 1.0]), np.arange(3))


def test_replicates_are_the_metrics_of_the_physically_resampled_rows() -> None:
    scores, labels, patient = _sample(50, 2, 12)
    labels[::7, 1] = np.nan
    owner = clusters(patient)
    bootstrap = PatientBootstrap(samples=30)
    result = measure(scores, labels, owner, bootstrap, seed=3)
    count = int(owner.max()) + 1
    draws = np.concatenate(list(bootstrap.multiplicities(count, len(owner), 3)))
    assert draws.shape == (30, count)
    for r, times in enumerate(draws):
        rows = np.repeat(np.arange(50), times[owner])
        again = measure(scores[rows], labels[rows], clusters(patient[rows]), POINT, seed=0)
        np.testing.assert_allclose(result.auroc.replicates[r], again.auroc.values, atol=1e-12)
        np.testing.assert_allclose(result.ap.replicates[r], again.ap.values, atol=1e-12)


def test_resamples_without_both_classes_are_dropped_and_counted() -> None:
    scores, labels, _ = _sample(30, 2, 30)
    labels[:, 0] = 0.0
    labels[4, 0] = 1.0  # one positive patient of 30: absent from (29/30)^30 = 36 % of resamples
    result = measure(scores, labels, np.arange(30), PatientBootstrap(1000), seed=0)
    estimate = result.auroc.finding(0)
    assert estimate.dropped == np.isnan(result.auroc.replicates[:, 0]).sum()
    assert 300 < estimate.dropped < 425
    assert result.auroc.finding(1).dropped == 0
    macro = result.auroc.macro()
    assert macro.dropped == estimate.dropped
    means = np.nanmean(result.auroc.replicates, axis=1)
    assert (macro.low, macro.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_a_difference_of_two_encoders_is_paired() -> None:
    scores, labels, patient = _sample(200, 3, 80)
    owner, bootstrap = clusters(patient), PatientBootstrap(300)
    worse = scores + 0.05 * np.random.default_rng(5).normal(size=scores.shape)
    a = measure(scores, labels, owner, bootstrap, seed=2).auroc
    b = measure(worse, labels, owner, bootstrap, seed=2).auroc
    none, gain = (a - a).macro(), (a - b).macro()
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
    assert gain.value == pytest.approx(a.macro().value - b.macro().value, abs=1e-12)
    unpaired = measure(worse, labels, owner, bootstrap, seed=9).auroc
    wide = (a - unpaired).macro()
    assert (gain.high - gain.low) < 0.3 * (wide.high - wide.low)
