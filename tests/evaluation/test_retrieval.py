from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.retrieval import intervals, recall


def _noise(rows: int, features: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))


def _distinct(rows: int) -> Tensor:
    return torch.arange(1, rows + 1) * 7919


def test_a_report_next_to_its_own_image_is_found_at_once() -> None:
    image = _noise(40)
    found = recall(image, 3.0 * image, _distinct(40))
    for name in ("i2t@1", "t2i@1", "i2t@10", "t2i@10"):
        assert found[name].tolist() == [1.0] * 40


@pytest.mark.parametrize("texts", [600, 25])
def test_embeddings_that_know_nothing_hit_as_often_as_chance(texts: int) -> None:
    same = torch.from_numpy(np.random.default_rng(1).integers(1, texts + 1, 600))
    found = recall(_noise(600), _noise(600, seed=1), same)
    for way, k in itertools.product(("i2t", "t2i"), (1, 5, 10)):
        chance = found[f"chance@{k}"]
        # queries share a pool, so their hits go together a little: 4 instead of 3 sigma
        sigma = math.sqrt((chance * (1 - chance)).sum()) / 600
        assert abs(found[f"{way}@{k}"].mean() - chance.mean()) < 4 * sigma


def test_recall_is_that_of_a_sort_by_hand_in_every_block() -> None:
    generator = torch.Generator().manual_seed(3)
    same = torch.randint(1, 400, (530,), generator=generator)  # beyond one block of queries
    image, noise = _noise(530, 8), _noise(530, 8, seed=2)
    text = image + noise
    found = recall(image, text, same)
    for k in (1, 5, 10):
        for i in (0, 1, 255, 511, 512, 529):
            assert found[f"i2t@{k}"][i] == _one(image, text, same, i, k)
            assert found[f"t2i@{k}"][i] == _one(text, image, same, i, k)


def _one(query: Tensor, pool: Tensor, same: Tensor, i: int, k: int) -> float:
    """Sort the pool for one query, others before matches among equals."""
    score = torch.nn.functional.cosine_similarity(query[i].double(), pool.double())
    ranked = sorted(range(len(pool)), key=lambda j: (-float(score[j]), bool(same[i] == same[j])))
    return float(any(same[j] == same[i] for j in ranked[:k]))


def test_image_to_report_and_back_are_not_the_same() -> None:
    """All images look like report 0, which looks like image 0."""
    image = torch.eye(4)[[0, 0, 0, 0]] + 0.01 * torch.eye(4)
    text = torch.eye(4)
    found = recall(image, text, _distinct(4), ks=(1,))
    assert found["i2t@1"].tolist() == [1, 0, 0, 0]
    assert found["t2i@1"].tolist() == [1, 1, 1, 1]


def test_any_study_with_the_same_report_is_a_hit() -> None:
    image = torch.eye(4)
    text = torch.eye(4)[[1, 0, 2, 3]]  # the reports of 0 and 1 are at each other's image
    same = torch.tensor([5, 5, 6, 7])
    assert recall(image, text, same, ks=(1,))["i2t@1"].tolist() == [1, 1, 1, 1]
    assert recall(image, text, _distinct(4), ks=(1,))["i2t@1"].tolist() == [0, 0, 1, 1]


def test_ties_count_against() -> None:
    text = torch.eye(6)
    image = torch.eye(6)
    image[0, :5] = 1.0  # as near to the reports of 1 to 4 as to its own
    found = recall(image, text, _distinct(6), ks=(1, 4, 5))
    assert [found[f"i2t@{k}"][0] for k in (1, 4, 5)] == [0, 0, 1]
    assert found["i2t@1"][1:].tolist() == [1] * 5


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_collapsed_embeddings_find_nothing_whatever_their_rounding(noise: float) -> None:
    one = _noise(1, 48).expand(300, 48)
    found = recall(one + noise * _noise(300, 48), one + noise * _noise(300, 48, 5), _distinct(300))
    assert sum(found[f"{way}@{k}"].sum() for way in ("i2t", "t2i") for k in (1, 5, 10)) == 0
    zeros = torch.zeros(300, 4)
    assert recall(zeros, zeros, _distinct(300))["i2t@10"].sum() == 0


def test_an_embedding_that_is_not_finite_finds_nothing_and_is_found_by_none() -> None:
    image, text = _noise(30), _noise(30)
    image[3], text[5] = math.nan, math.inf
    found = recall(image, text, _distinct(30), ks=(1, 40))
    for name in ("i2t@1", "t2i@1", "i2t@40", "t2i@40"):
        assert np.flatnonzero(found[name] == 0).tolist() == [3, 5]


def test_chance_is_the_share_of_all_orders_that_hit() -> None:
    same = torch.tensor([1, 1, 2, 3, 3, 3])
    found = recall(_noise(6), _noise(6), same, ks=(1, 2, 5, 10))
    orders = list(itertools.permutations(same.tolist()))
    for k in (1, 2, 5, 10):
        expected = [np.mean([own in order[:k] for order in orders]) for own in same.tolist()]
        np.testing.assert_allclose(found[f"chance@{k}"], expected, atol=1e-12)


def test_no_study_is_no_query() -> None:
    found = recall(_noise(0), _noise(0), _distinct(0))
    assert {len(hits) for hits in found.values()} == {0}


def test_intervals_draw_patients_and_not_studies() -> None:
    hits = np.repeat(np.random.default_rng(0).random(30) < 0.4, 6).astype(float)
    bootstrap = PatientBootstrap(400)
    alike = np.repeat(np.arange(1, 31), 6)
    several = intervals({"i2t@1": hits}, alike, bootstrap, seed=1)["i2t@1"]
    each = intervals({"i2t@1": hits}, np.zeros(180, np.int64), bootstrap, seed=1)["i2t@1"]
    assert several.value == each.value == hits.mean()
    assert several.low < several.value < several.high
    assert several.high - several.low > 2 * (each.high - each.low)
