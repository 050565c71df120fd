from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_rad.collectives import rank
from lightning_rad.evaluation.rows import RowCollector, Rows
from tests.gloo import run_on_ranks

CPU = torch.device("cpu")


def _batch(image: list[int]) -> dict[str, Tensor]:
    """Rows that are functions of their image index, with an unknown label now and then."""
    index = torch.tensor(image, dtype=torch.int64)
    labels = torch.stack([index % 2, index % 3 - 1], 1).float()
    labels[labels < 0] = math.nan
    features = (
        torch.sin(index[:, None] * torch.arange(1.0, 5.0)) if len(image) else torch.empty(0, 4)
    )
    return {"features": features, "labels": labels, "patient": index // 2 - 1, "image": index}


def _collect(batches: list[list[int]], with_random: bool = True) -> Rows:
    collector = RowCollector(2, with_random=with_random)
    for image in batches:
        batch = _batch(image)
        collector.add(batch, 2 * batch["features"] if with_random else None)
    return collector.gather(CPU)


def _assert_equal(a: Rows, b: Rows) -> None:
    for name in ("features", "labels", "patient", "image", "random"):
        torch.testing.assert_close(
            getattr(a, name), getattr(b, name), rtol=0, atol=0, equal_nan=True
        )


def test_rows_come_once_and_sorted_whatever_the_batches_were() -> None:
    plain = _collect([list(range(12))])
    mixed = _collect([[3, 1, 11, 0], [7, 7, 2], [10, 9, 8, 3, 0], [4, 5, 6]])
    _assert_equal(plain, mixed)
    assert mixed.image.tolist() == list(range(12))
    assert mixed.random is not None
    assert torch.equal(mixed.random, 2 * mixed.features)


def _ranks(shares: list[list[list[int]]]) -> Rows:
    return _collect(shares[rank()])


def test_ranks_with_unequal_shares_or_none_hold_the_rows_of_one_process() -> None:
    expected = _collect([list(range(9))])
    for shares in (
        [[[8, 1], [0]], [[2, 3, 4], [7, 6], [5, 5, 5]]],
        [[], [[4, 3, 2, 1, 0], [8, 7, 6, 5]]],
        [[[4, 3, 2, 1, 0], [8, 7, 6, 5]], []],
    ):
        for rows in run_on_ranks(_ranks, 2, shares):
            _assert_equal(rows, expected)


def test_no_rows_on_any_rank_are_no_rows() -> None:
    for rows in (_collect([]), *run_on_ranks(_ranks, 2, [[], []])):
        assert rows.features.shape == (0, 0)
        assert rows.labels.shape == (0, 2)
        assert len(rows.image) == len(rows.patient) == 0


def test_collected_rows_hold_no_graph_and_do_not_follow_the_batch() -> None:
    collector = RowCollector(2, with_random=False)
    batch = _batch([1, 2])
    batch["features"].requires_grad_()
    collector.add(batch, None)
    rows = collector.gather(CPU)
    assert not rows.features.requires_grad
    assert rows.random is None
