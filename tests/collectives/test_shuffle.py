"""ShuffleBN: a permutation over ranks and back."""

from __future__ import annotations

import pytest
import torch

from lightning_rad.collectives import rank, shuffle_rows, unshuffle_rows, world_size
from tests.gloo import run_on_ranks

ROWS = 3


def _there_and_back() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.arange(ROWS * 2.0).view(ROWS, 2) + 100 * rank()
    order = torch.randperm(ROWS * world_size(), generator=torch.Generator().manual_seed(5))
    shuffled = shuffle_rows(x.requires_grad_(), order)
    assert not shuffled.requires_grad
    return x.detach(), shuffled, unshuffle_rows(shuffled, order)


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_row_comes_back_to_its_place_and_none_is_lost(ranks: int) -> None:
    out = run_on_ranks(_there_and_back, ranks)
    order = torch.randperm(ROWS * ranks, generator=torch.Generator().manual_seed(5))
    whole = torch.cat([x for x, _, _ in out])
    assert torch.equal(torch.cat([shuffled for _, shuffled, _ in out]), whole[order])
    for x, shuffled, back in out:
        assert torch.equal(back, x)
        assert not torch.equal(shuffled, x)


def test_on_one_process_rows_stay_as_they_are() -> None:
    x = torch.randn(4, 2)
    order = torch.tensor([3, 2, 1, 0])
    assert torch.equal(shuffle_rows(x, order), x)
    assert torch.equal(unshuffle_rows(x, order), x)
