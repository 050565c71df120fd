from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_rad.evaluation import knn as module
from lightning_rad.evaluation.knn import NearestNeighbours


def _literal(bank: Tensor, labels: Tensor, queries: Tensor, k: int, t: float) -> Tensor:
    """The definition, row by row and finding by finding."""
    out = torch.empty(len(queries), labels.shape[1], dtype=torch.float64)
    for q, query in enumerate(queries.double()):
        cosine = [float(query @ row / (query.norm() * row.norm())) for row in bank.double()]
        nearest = sorted(range(len(bank)), key=lambda i: -cosine[i])[:k]
        for c in range(labels.shape[1]):
            voters = [i for i in nearest if not math.isnan(labels[i, c])]
            known = [float(y) for y in labels[:, c] if not math.isnan(y)]
            if voters:
                weights = [math.exp(cosine[i] / t) for i in voters]
                votes = [w * float(labels[i, c]) for w, i in zip(weights, voters, strict=True)]
                out[q, c] = sum(votes) / sum(weights)
            else:
                out[q, c] = sum(known) / len(known) if known else math.nan
    return out


def _data(bank: int, queries: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(bank + queries, 6, generator=generator) * 3
    labels = (torch.rand(bank, 4, generator=generator) < 0.4).float()
    labels[torch.rand(bank, 4, generator=generator) < 0.5] = math.nan
    labels[:, 3] = math.nan
    return features[:bank], labels, features[bank:]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (3, 0.07), (10, 1.0), (99, 0.2)])
def test_votes_equal_a_literal_loop(k: int, temperature: float) -> None:
    bank, labels, queries = _data(30, 12)
    votes = NearestNeighbours(k, temperature).scores(bank, labels, queries)
    expected = _literal(bank, labels, queries, k, temperature)
    assert votes.isnan()[:, 3].all()
    torch.testing.assert_close(votes, expected, atol=1e-10, rtol=0, equal_nan=True)


def test_the_result_does_not_depend_on_how_queries_are_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank, labels, queries = _data(40, 23)
    whole = NearestNeighbours(5).scores(bank, labels, queries)
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", 4)
    parts = NearestNeighbours(5).scores(bank, labels, queries)
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0, equal_nan=True)


def test_lengths_of_features_do_not_matter_and_a_tiny_temperature_does_not_overflow() -> None:
    bank, labels, queries = _data(30, 8)
    settings = NearestNeighbours(7, 1e-4)
    votes = settings.scores(bank, labels.nan_to_num(1.0), queries)
    scaled = settings.scores(bank * torch.rand(30, 1).add(0.1), labels.nan_to_num(1.0), queries * 9)
    assert votes.isfinite().all()
    torch.testing.assert_close(votes, scaled, atol=1e-6, rtol=0)


def test_features_that_are_not_finite_give_no_vote_instead_of_a_guess() -> None:
    bank, labels, queries = _data(30, 8)
    queries[2] = math.nan
    votes = NearestNeighbours(30).scores(bank, labels, queries)
    assert votes[2].isnan().all()
    assert votes[[0, 1, 3], :3].isfinite().all()


def test_no_bank_and_no_queries_are_no_error() -> None:
    bank, labels, queries = _data(30, 8)
    assert NearestNeighbours().scores(bank[:0], labels[:0], queries).isnan().all()
    assert NearestNeighbours().scores(bank, labels, queries[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"k": 0}, "knn.k"),
        ({"temperature": 0.0}, "knn.temp"),
        ({"temperature": math.nan}, "knn.temp"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(arguments: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        NearestNeighbours(**arguments)  # type: ignore[arg-type]
