from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from lightning_rad.evaluation.bootstrap import Estimate, PatientBootstrap
from lightning_rad.evaluation.grades import Grades, columns_of, graded, name_of

LEVELS = ["kl_0", "kl_1", "kl_2", "kl_3", "kl_4"]


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, one-hot labels and patients (two images each)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(5, size=n)
    scores = -np.abs(np.arange(5) - truth[:, None] - rng.normal(0.0, 1.2, (n, 1)))
    return scores, np.eye(5)[truth], 1 + np.arange(n) // 2


def score(scores: np.ndarray, labels: np.ndarray, patient: np.ndarray, samples: int = 0) -> Grades:
    return graded(scores, labels, patient, PatientBootstrap(samples), seed=3)


def numbers(grades: Grades) -> list[float]:
    return [e.value for e in (grades.accuracy, grades.mae, grades.kappa)]


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_error_and_kappa_are_those_of_scikit_learn(seed: int) -> None:
    scores, labels, patient = drawn(150, seed)
    truth, said = labels.argmax(1), scores.argmax(1)
    found = score(scores, labels, patient)
    expected = [
        accuracy_score(truth, said),
        mean_absolute_error(truth, said),
        cohen_kappa_score(truth, said, weights="quadratic", labels=range(5)),
    ]
    assert numbers(found) == pytest.approx(expected, abs=1e-12)
    assert (found.n, found.left_out) == (150, 0)


def test_images_without_exactly_one_known_grade_are_left_out_and_counted() -> None:
    scores, labels, patient = drawn(60, 1)
    clean = score(scores[5:], labels[5:], patient[5:])
    labels[0], labels[1], labels[2, 0:2], labels[3] = math.nan, 0.0, 1.0, [1, 1, 0, 0, math.nan]
    labels[4] = np.where(labels[4] == 1, math.nan, 0.0)
    found = score(scores, labels, patient)
    assert (found.n, found.left_out) == (55, 5)
    assert numbers(found) == numbers(clean)
    # the other levels may be unknown where one is known to be it
    labels[10] = np.where(labels[10] == 1, 1.0, math.nan)
    assert score(scores, labels, patient).n == 55


def test_of_equal_scores_the_lower_grade_is_said_and_an_untaught_one_never() -> None:
    labels = np.eye(5)[[2, 3, 4]]
    scores = np.array([[0.0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 2, math.nan]])
    found = score(scores, labels, np.array([1, 2, 3]))
    assert numbers(found)[:2] == pytest.approx([1 / 3, 2 / 3])


def test_an_image_without_any_score_leaves_no_number_that_looks_like_one() -> None:
    scores, labels, patient = drawn(20, 2)
    scores[7] = math.nan
    assert all(math.isnan(v) for v in numbers(score(scores, labels, patient, samples=20)))
    none = score(scores[:0], labels[:0], patient[:0], samples=20)
    assert all(math.isnan(v) for v in numbers(none))
    assert (none.n, none.left_out) == (0, 0)


def test_kappa_is_not_defined_where_truth_and_answer_are_one_grade() -> None:
    labels = np.eye(5)[[2, 2, 2]]
    found = score(labels, labels, np.array([1, 2, 3]))
    assert numbers(found)[:2] == [1.0, 0.0]
    assert math.isnan(found.kappa.value)


def test_intervals_resample_patients_and_not_images() -> None:
    scores, labels, _ = drawn(120, 5)
    scores, labels = scores.repeat(4, axis=0), labels.repeat(4, axis=0)
    own = score(scores, labels, np.arange(480) + 1, samples=400)
    shared = score(scores, labels, np.arange(480) // 4 + 1, samples=400)

    def width(estimate: Estimate) -> float:
        return estimate.high - estimate.low

    for number in ("accuracy", "mae", "kappa"):
        wide, narrow = getattr(shared, number), getattr(own, number)
        assert wide.value == narrow.value
        assert wide.low < wide.value < wide.high
        assert width(wide) > 1.5 * width(narrow)  # of 4 equal images: twice


def test_a_grade_is_called_by_what_its_labels_begin_with() -> None:
    assert name_of(LEVELS) == "kl"
    assert name_of(["mild", "severe"]) == "mild"


def test_labels_of_a_grade_that_make_no_sense_are_refused_by_name() -> None:
    assert columns_of([["kl_1", "kl_0"]], ["nodule", "kl_0", "kl_1"]) == ((2, 1),)
    with pytest.raises(ValueError, match=r"^probe.exclusive names 'kl_9', which is no label"):
        columns_of([["kl_0", "kl_9"]], LEVELS)
    for wrong in (["kl_0"], ["kl_0", "kl_0"], "kl_0"):
        with pytest.raises(ValueError, match=r"^probe.exclusive: a grade is a list"):
            columns_of([wrong], LEVELS)
