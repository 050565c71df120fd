"""Localisation: a hit an annotated box, by its own finding's box, with patients resampled."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.localisation import THRESHOLDS, Located, located

NAN = math.nan
NONE = [NAN] * 4
A, B = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
HALF, THIRD = [0.0, 0.0, 10.0, 5.0], [5.0, 0.0, 15.0, 10.0]


def of(
    predicted: list[list[list[float]]],
    boxes: list[list[list[float]]],
    finding: list[list[int]],
    patient: list[int] | None = None,
    *,
    samples: int = 0,
    any_finding: bool = False,
) -> Located:
    return located(
        torch.tensor(predicted),
        torch.tensor(boxes),
        torch.tensor(finding),
        np.array(patient or range(1, len(boxes) + 1)),
        bootstrap=PatientBootstrap(samples),
        seed=3,
        any_finding=any_finding,
    )


def test_a_box_counts_from_its_overlap_down() -> None:
    found = of([[HALF, THIRD]], [[A, A]], [[0, 1]])
    assert found.thresholds == THRESHOLDS
    assert found.n.tolist() == [1, 1]
    assert found.values.tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]]
    assert [one.value for one in found.macro] == [1, 1, 1, 0.5, 0.5, 0, 0]


def test_another_findings_box_is_no_hit_unless_the_published_rule_is_asked_for() -> None:
    given = ([[B, A]], [[A, NONE]], [[0, -1]])
    assert of(*given).values[0].tolist() == [0] * 7
    assert of(*given, any_finding=True).values[0].tolist() == [1] * 7
    # there an overlap of exactly the threshold is none
    assert of([[HALF, B]], [[A]], [[0]], any_finding=True).values[0, 4] == 0
    assert of([[HALF, B]], [[A]], [[0]]).values[0, 4] == 1


def test_every_annotated_box_counts_by_itself_and_those_without_area_do_not() -> None:
    flat = [3.0, 3.0, 3.0, 9.0]
    found = of(
        [[A, A], [A, B], [A, A]],
        [[A, B, flat], [A, NONE, NONE], [NONE, NONE, NONE]],
        [[0, 0, 0], [0, -1, -1], [-1, -1, -1]],
    )
    assert found.n.tolist() == [3, 0]
    assert found.values[0, 0] == pytest.approx(2 / 3)
    assert np.isnan(found.values[1]).all()
    assert found.macro[0].value == pytest.approx(2 / 3)  # over the finding that has boxes


def test_no_box_at_all_and_none_predicted_have_answers() -> None:
    found = of([[A, A]], [[NONE]], [[-1]], samples=5)
    assert np.isnan(found.values).all()
    assert math.isnan(found.macro[0].value)
    empty = located(
        torch.zeros(2, 2, 4),
        torch.zeros(2, 0, 4),
        torch.zeros(2, 0, dtype=torch.int64),
        np.array([1, 2]),
        bootstrap=PatientBootstrap(3),
        seed=0,
    )
    assert empty.n.tolist() == [0, 0]
    assert of([[NONE, A]], [[A]], [[0]]).values[0, 0] == 0


def test_intervals_are_of_patients_not_of_boxes() -> None:
    generator = np.random.default_rng(0)
    hits = np.repeat(generator.integers(0, 2, 30), 8)  # eight alike images of each of 30 patients
    predicted = [[A if hit else B] for hit in hits]
    one = of(predicted, [[A]] * 240, [[0]] * 240, samples=400)
    apart = one.of[0][0]
    together = of(
        predicted, [[A]] * 240, [[0]] * 240, list(np.repeat(range(1, 31), 8)), samples=400
    ).of[0][0]
    assert apart.value == together.value == pytest.approx(hits.mean())
    assert together.low < apart.low < apart.value < apart.high < together.high
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_it_is_the_count_of_a_literal_loop() -> None:
    generator = torch.Generator().manual_seed(0)

    def boxes(*shape: int) -> Tensor:
        corner = 40 * torch.rand(*shape, 2, generator=generator)
        return torch.cat([corner, corner + 5 + 30 * torch.rand(*shape, 2, generator=generator)], -1)

    predicted, given = boxes(20, 3), boxes(20, 4)
    finding = torch.randint(-1, 3, (20, 4), generator=generator)
    given[finding < 0] = NAN
    found = located(
        predicted, given, finding, np.arange(1, 21), bootstrap=PatientBootstrap(0), seed=0
    )
    for column in range(3):
        for level, least in enumerate(THRESHOLDS):
            hits = []
            for image in range(20):
                for k in range(4):
                    if int(finding[image, k]) == column:
                        a, b = predicted[image, column].tolist(), given[image, k].tolist()
                        wide = min(a[2], b[2]) - max(a[0], b[0])
                        high = min(a[3], b[3]) - max(a[1], b[1])
                        common = max(wide, 0) * max(high, 0)
                        sizes = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
                        hits.append(common / (sum(sizes) - common) >= least)
            assert found.n[column] == len(hits)
            assert found.values[column, level] == pytest.approx(sum(hits) / len(hits))
    assert 0 < found.values[:, 0].min() <= found.values[:, 0].max() < 1
