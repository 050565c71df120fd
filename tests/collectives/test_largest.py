"""The largest number of all ranks, found while other things are sent; the rate of all-reduces."""

from __future__ import annotations

import pytest
import torch
from torch import distributed as dist

from lightning_rad.collectives import Largest, all_reduce_rates, rank, world_size
from tests.gloo import run_on_ranks


def _largest() -> list[int]:
    """Of two questions open at once, with a sum between asking and answer; twice."""
    found = []
    for asked in range(2):
        number = torch.tensor([10 * asked + (rank() * 7) % 5])
        one = Largest(number)
        other = Largest(number.bool().any() * (rank() + 1))
        number.fill_(-99)  # what was asked about is the caller's
        total = torch.ones(1000)
        dist.all_reduce(total)
        assert float(total[0]) == world_size()
        found += [one.read(), other.read()]
    return found


@pytest.mark.parametrize(("ranks", "most", "last"), [(2, 2, 2), (4, 4, 4)])
def test_every_rank_reads_the_largest(ranks: int, most: int, last: int) -> None:
    assert run_on_ranks(_largest, ranks) == [[most, last, 10 + most, ranks]] * ranks


def test_one_process_reads_its_own() -> None:
    assert Largest(torch.tensor(True) * 5).read() == 5
    assert Largest(torch.tensor([0.0])).read() == 0


def _rates() -> dict[int, float]:
    return all_reduce_rates((1 << 12, 1 << 16), torch.device("cpu"), repeats=2)


def test_all_ranks_name_one_rate_a_size() -> None:
    one, other = run_on_ranks(_rates, 2)
    assert one == other
    assert set(one) == {1 << 12, 1 << 16}
    assert all(rate > 0 for rate in one.values())
