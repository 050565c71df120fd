from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_rad.evaluation.assessment import Assessment, Assessor
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.collapse import rankme
from lightning_rad.evaluation.knn import NearestNeighbours
from lightning_rad.evaluation.linear import LinearProbe
from lightning_rad.evaluation.rows import Rows

ASSESSOR = Assessor(NearestNeighbours(5), LinearProbe((0.1,)), PatientBootstrap(30), seed=0)
FINDINGS = ("good", "unfitted", "unscored", "absent")


def _rows(seed: int, patients: int = 50, images: int = 2) -> Rows:
    rng = np.random.default_rng(seed)
    n = patients * images
    labels = (rng.random((n, 4)) < 0.4).astype(np.float32)
    features = rng.normal(size=(n, 6)).astype(np.float32)
    features[:, :4] += 2 * labels
    return Rows(
        features=torch.from_numpy(features),
        labels=torch.from_numpy(labels),
        patient=torch.arange(n) // images + 1 + 1000 * seed,
        image=torch.arange(n),
    )


def _splits() -> tuple[Rows, Rows]:
    fit, score = _rows(1), _rows(2)
    fit.labels[:, 1] = 0.0
    score.labels[:, 2] = math.nan
    score.labels[:, 3] = 0.0
    return fit, score


def _assess(fit: Rows, score: Rows, random: Tensor | None = None) -> Assessment:
    reading = ASSESSOR.read(fit.features, score.features, fit, score)
    beside = None
    if random is not None:
        beside = ASSESSOR.read(fit.features @ random, score.features @ random, fit, score)
    return Assessment(FINDINGS, fit, score, reading, beside)


def test_a_finding_without_a_metric_says_why() -> None:
    assessment = _assess(*_splits())
    reasons = [assessment.undefined(c) for c in range(4)]
    assert reasons == ["", "one class to fit", "no label", "one class"]
    for metric in assessment.pretrained.metrics.values():
        assert np.isnan(metric.values).tolist() == [False, True, True, True]
        assert metric.macro_findings == 1


def test_logged_values_leave_out_what_the_data_do_not_allow_but_for_the_macro() -> None:
    fit, score = _splits()
    values = _assess(fit, score).values("val")
    assert "val/linear_auroc/good" in values
    assert not any(name in key for key in values for name in FINDINGS[1:])
    assert "val/patient_alignment" in values
    alone = Rows(score.features, score.labels, torch.zeros_like(score.patient), score.image)
    assert "val/patient_alignment" not in _assess(fit, alone).values("val")
    score.labels.fill_(math.nan)
    unlabelled = _assess(fit, score).values("val")
    assert math.isnan(unlabelled["val/linear_auroc"])
    assert unlabelled["val/rankme"] == pytest.approx(rankme(score.features))


def test_the_gain_is_pretrained_minus_random_on_the_same_resamples() -> None:
    fit, score = _splits()
    same = _assess(fit, score, torch.eye(6)).gain("linear_auroc")
    assert same is not None
    estimate = same.macro()
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)
    blind = torch.eye(6)
    blind[:4] = 0.0  # a projection that loses the findings
    gain = _assess(fit, score, blind).gain("linear_auroc")
    assert gain is not None
    assert gain.macro().low > 0.1
    assert _assess(fit, score).gain("linear_auroc") is None


def test_more_images_of_the_same_patients_are_no_more_evidence() -> None:
    fit, score = _rows(1), _rows(2, images=1)
    copies = Rows(*(x.repeat_interleave(5, 0) for x in _fields(score)))
    once, often = (_assess(fit, s).pretrained.metrics for s in (score, copies))
    for name, metric in once.items():
        np.testing.assert_allclose(often[name].replicates, metric.replicates, atol=1e-12)


def _fields(rows: Rows) -> tuple[Tensor, ...]:
    return rows.features, rows.labels, rows.patient, rows.image


def test_unlabelled_shards_still_have_their_monitors() -> None:
    fit, score = _rows(1), _rows(2)
    bare = [Rows(r.features, r.labels[:, :0], r.patient, r.image) for r in (fit, score)]
    reading = ASSESSOR.read(fit.features, score.features, *bare)
    values = Assessment((), *bare, reading, None).values("val")
    assert math.isnan(values["val/linear_auroc"])
    assert values["val/feature_std"] > 0.5
