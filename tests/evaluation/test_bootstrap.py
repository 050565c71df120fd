from __future__ import annotations

import math
import time

import numpy as np
import pytest

from lightning_rad.evaluation import bootstrap as module
from lightning_rad.evaluation.bootstrap import PatientBootstrap, clusters
from lightning_rad.evaluation.metrics import measure


def test_clusters_keep_a_patients_rows_together_and_unknown_patients_apart() -> None:
    patient = np.array([-5, 9, 0, 9, 0, -5, 2**62])
    owner = clusters(patient)
    assert owner.tolist() == [0, 1, 3, 1, 4, 0, 2]
    assert clusters(np.empty(0, np.int64)).tolist() == []


def test_every_resample_draws_as_many_patients_as_there_are() -> None:
    draws = np.concatenate(list(PatientBootstrap(500).multiplicities(40, 100, 1)))
    assert draws.shape == (500, 40)
    assert (draws.sum(1) == 40).all()
    # a count is binomial(40, 1/40): mean 1, variance 39/40
    assert draws.mean() == 1.0
    assert draws.var() == pytest.approx(39 / 40, rel=0.05)


def test_resamples_do_not_depend_on_how_they_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = np.concatenate(list(PatientBootstrap(101).multiplicities(37, 50, 4)))
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 7 * 50)
    parts = list(PatientBootstrap(101).multiplicities(37, 50, 4))
    assert len(parts) == 15
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    other = np.concatenate(list(PatientBootstrap(101).multiplicities(37, 50, 5)))
    assert (other != whole).any()


def test_the_interval_is_that_of_the_percentiles_of_what_is_defined() -> None:
    replicates = np.concatenate([np.arange(101.0), [np.nan] * 9])
    estimate = PatientBootstrap(110, confidence=0.9).estimate(50.0, replicates)
    assert (estimate.low, estimate.high) == pytest.approx((5.0, 95.0))
    assert estimate.dropped == 9
    lonely = PatientBootstrap(3).estimate(0.5, np.array([0.5, np.nan, np.nan]))
    assert math.isnan(lonely.low)
    assert lonely.dropped == 2


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"samples": -1}, "bootstrap.samples"),
        ({"confidence": 0.0}, "bootstrap.confidence"),
        ({"confidence": 1.0}, "bootstrap.confidence"),
        ({"confidence": math.nan}, "bootstrap.confidence"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(arguments: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        PatientBootstrap(**arguments)  # type: ignore[arg-type]


def _clustered(rng: np.random.Generator, patients: int, images: int) -> tuple[np.ndarray, ...]:
    """Patients with one diagnosis and `images` alike images: score = 1.2 y + patient + image."""
    y = np.repeat((rng.random(patients) < 0.4).astype(float), images)
    score = 1.2 * y + np.repeat(rng.normal(size=patients), images)
    score += 0.3 * rng.normal(size=len(y))
    return score[:, None], y[:, None], np.repeat(np.arange(patients), images)


def test_patient_intervals_cover_the_true_auroc_and_row_intervals_do_not() -> None:
    rng = np.random.default_rng(11)
    # difference of two normals of variance 1 + 0.3^2 each: P(d > 0) at mean 1.2
    truth = 0.5 * (1 + math.erf(1.2 / math.sqrt(2 * 1.09) / math.sqrt(2)))
    runs, bootstrap = 300, PatientBootstrap(200, confidence=0.9)
    covered = {"patient": 0, "row": 0}
    for run in range(runs):
        score, label, patient = _clustered(rng, 80, 5)
        for name, owner in (("patient", patient), ("row", np.arange(len(patient)))):
            e = measure(score, label, owner, bootstrap, seed=run).auroc.finding(0)
            covered[name] += e.low <= truth <= e.high
    # nominal 0.9 with a binomial deviation of 0.017, less a little for percentiles and 80 patients
    assert 0.84 <= covered["patient"] / runs <= 0.95
    assert covered["row"] / runs < 0.70


def test_a_thousand_resamples_of_fourteen_findings_take_a_second_or_two() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 14)) < 0.08).astype(float)
    scores = rng.normal(size=labels.shape) + labels
    owner = clusters(rng.integers(1, 1500, 2000))
    started = time.process_time()
    result = measure(scores, labels, owner, PatientBootstrap(1000), seed=0)
    assert time.process_time() - started < 4.0  # measured: 0.3 s on one core
    assert np.isfinite(result.auroc.macro().low)


def test_a_function_of_sums_is_resampled_by_patient() -> None:
    rng = np.random.default_rng(0)
    rows, patient = rng.random((40, 2)), rng.integers(0, 9, 40)  # 0 is unknown, each on its own
    bootstrap = PatientBootstrap(60)
    owner = clusters(patient)
    replicates = []
    for block in bootstrap.multiplicities(int(owner.max()) + 1, 40, seed=5):
        for counts in block:
            weight = counts[owner]
            replicates.append((weight @ rows[:, 0]) / (weight @ rows[:, 1]))
    value = rows[:, 0].sum() / rows[:, 1].sum()
    expected = bootstrap.estimate(value, np.array(replicates))
    (got,) = bootstrap.of_sums(rows, patient, lambda sums: sums[:, :1] / sums[:, 1:], seed=5)
    assert (got.value, got.low, got.high) == pytest.approx(
        (expected.value, expected.low, expected.high), abs=1e-12
    )
    (bare,) = PatientBootstrap(0).of_sums(rows, patient, lambda sums: sums[:, :1], seed=5)
    assert bare.value == pytest.approx(rows[:, 0].sum())
    assert math.isnan(bare.low)
