from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.report_scores import Texts, f1, score
from lightning_rad.evaluation.retrieval import intervals, recall
from lightning_rad.evaluation.study_rows import StudyRows

NONE = PatientBootstrap(0)
FINDINGS = ("effusion", "nodule")
WORDS = {"nodule": ["nodul"], "effusion": ["effusion", "pleural fluid"]}


def _rows(studies: int = 20) -> StudyRows:
    unit = torch.arange(studies)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(studies, 6, generator=generator)
    return StudyRows(
        unit=unit,
        patient=unit // 2 + 1,
        hash=unit + 1,
        image=image,
        text=image,
        labels=torch.stack([unit % 2, unit % 3 // 2], 1).float(),
        nll=(unit + 1.0) * 0.7,
        tokens=unit % 4 + 1,
    )


def _told(labels: torch.Tensor) -> list[str]:
    return [
        f"{'Pleural fluid is seen' if e else 'No effusion'}. "
        f"{'Several nodules' if n else 'There is no nodule'}."
        for e, n in labels.tolist()
    ]


def test_perplexity_is_over_tokens_and_not_over_reports() -> None:
    rows = _rows()
    assert rows.nll is not None
    assert rows.tokens is not None
    scores = score(rows, None, FINDINGS, WORDS, PatientBootstrap(50), seed=0)
    found = scores["perplexity"].estimate
    assert found.value == pytest.approx(math.exp(float(rows.nll.sum() / rows.tokens.sum())))
    assert found.low < found.value < found.high
    assert not any(name.startswith(("finding", "true")) for name in scores)
    assert (scores["recall_i2t@1"].estimate.value, scores["recall_i2t@1"].studies) == (1.0, 20)


def test_intervals_resample_patients_and_not_studies() -> None:
    rows, noisy = _rows(40), torch.Generator().manual_seed(1)
    rows = replace(rows, text=rows.image + 2 * torch.randn(rows.image.shape, generator=noisy))
    many = PatientBootstrap(200)
    together = score(rows, None, FINDINGS, WORDS, many, seed=0)
    apart = score(replace(rows, patient=rows.unit), None, FINDINGS, WORDS, many, seed=0)
    merged = score(replace(rows, patient=rows.unit // 8), None, FINDINGS, WORDS, many, seed=0)
    hits = recall(rows.image, rows.text, rows.hash)
    want = intervals(hits, rows.patient.numpy(), many, seed=0)
    assert together["recall_i2t@5"].estimate == want["i2t@5"]
    for name in ("recall_i2t@5", "perplexity"):
        a, b, c = (scores[name].estimate for scores in (apart, together, merged))
        assert a.value == b.value == c.value
        assert len({(e.low, e.high) for e in (a, b, c)}) == 3


def test_an_objective_that_writes_no_reports_has_retrieval_alone() -> None:
    rows = _rows()
    bare = StudyRows(rows.unit, rows.patient, rows.hash, rows.image, rows.text, rows.labels)
    scores = score(bare, None, FINDINGS, None, NONE, seed=0)
    names = {f"recall_{w}@{k}" for w in ("i2t", "t2i", "chance") for k in (1, 5, 10)}
    assert set(scores) == names


def test_texts_that_name_the_findings_of_their_study_score_one_and_texts_of_others_less() -> None:
    rows = _rows()
    row = torch.arange(5, 17)
    true = _told(rows.labels[row])
    right = Texts(row, true, true)
    scores = score(rows, right, FINDINGS, WORDS, NONE, seed=0)
    for name in ("finding_f1", "finding_f1_micro", "true_f1", "finding_f1/nodule"):
        assert (scores[name].estimate.value, scores[name].studies) == (1.0, 12)
    wrong = score(rows, Texts(row, true, [*true[1:], true[0]]), FINDINGS, WORDS, NONE, seed=0)
    assert wrong["finding_f1"].estimate.value < 0.5
    assert wrong["true_f1"].estimate.value == 1.0


def _draw(studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    labels = (rng.random((studies, 3)) < [0.4, 0.2, 0.0]).astype(float)
    named = np.where(rng.random(labels.shape) < 0.3, 1 - labels, labels)
    return named, labels


def test_f1_is_that_of_scikit_learn_over_known_labels() -> None:
    named, labels = _draw(200)
    labels[np.random.default_rng(1).random(labels.shape) < 0.3] = np.nan
    found = f1(named, labels, "abc", np.zeros(200, np.int64), PatientBootstrap(30), seed=0)
    known = ~np.isnan(labels)
    each = [f1_score(labels[known[:, c], c], named[known[:, c], c]) for c in range(2)]
    assert [found["/a"].value, found["/b"].value] == pytest.approx(each)
    assert math.isnan(found["/c"].value)  # no study has it
    assert found[""].value == pytest.approx(np.mean(each))
    assert found["_micro"].value == pytest.approx(f1_score(labels[known], named[known]))
    assert found[""].low < found[""].value < found[""].high


def test_chance_is_the_mean_over_all_ways_to_deal_the_texts() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 1], [1, 0], [0, 1]], float)
    named = np.array([[1, 0], [1, 1], [0, 0], [1, 0], [0, 0]], float)
    owner = np.zeros(5, np.int64)
    every = [
        f1(named[list(order)], labels, "ab", owner, NONE, seed=0)[""].value
        for order in itertools.permutations(range(5))
    ]
    assert f1(named, labels, "ab", owner, NONE, seed=0)["_chance"].value == pytest.approx(
        np.mean(every), abs=1e-12
    )


def test_texts_that_name_nothing_score_zero_and_labels_that_say_nothing_are_no_score() -> None:
    named, labels = _draw(50)
    nothing = f1(np.zeros_like(named), labels, "abc", np.zeros(50, np.int64), NONE, seed=0)
    assert (nothing[""].value, nothing["_micro"].value, nothing["_chance"].value) == (0, 0, 0)
    unknown = np.full_like(labels, np.nan)
    blind = f1(named, unknown, "abc", np.zeros(50, np.int64), PatientBootstrap(9), seed=0)
    assert all(math.isnan(estimate.value) for estimate in blind.values())
