"""The pool of ranks itself: it must not swallow what its tests would tell."""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist

from lightning_rad.collectives import rank
from tests.gloo import RankError, run_on_ranks


def _identify(offset: int) -> tuple[int, int, int, int]:
    return rank() + offset, dist.get_world_size(), torch.get_num_threads(), os.getpid()


def _fail_on_last() -> None:
    if rank() == dist.get_world_size() - 1:
        raise KeyError("planted")
    dist.barrier()  # the others wait for it, in vain


def _sleep_on_last() -> None:
    if rank() == dist.get_world_size() - 1:
        time.sleep(60)


def _die() -> None:
    os._exit(1)


def test_results_come_in_rank_order_from_reused_processes() -> None:
    first, second = run_on_ranks(_identify, 2, 5), run_on_ranks(_identify, 2, 7)
    assert [r[:3] for r in first] == [(5, 2, 1), (6, 2, 1)]
    assert [r[3] for r in first] == [r[3] for r in second]
    assert len({r[3] for r in first} | {os.getpid()}) == 3


def test_an_error_on_one_rank_is_raised_with_its_traceback_and_the_pool_recovers() -> None:
    with pytest.raises(KeyError, match="planted") as caught:
        run_on_ranks(_fail_on_last, 2)
    assert isinstance(caught.value.__cause__, RankError)
    assert "rank 1" in str(caught.value.__cause__)
    assert "_fail_on_last" in str(caught.value.__cause__)
    assert [r[0] for r in run_on_ranks(_identify, 2, 0)] == [0, 1]


def test_a_rank_that_hangs_or_dies_is_an_error() -> None:
    with pytest.raises(TimeoutError):
        run_on_ranks(_sleep_on_last, 2, timeout=2)
    with pytest.raises(RankError, match="died"):
        run_on_ranks(_die, 1)
