"""What a source is told of the shards that come: in time, in order, no more than there is room."""

from itertools import pairwise

import numpy as np

from lightning_rad.data.ahead import ReadAhead, expect_next
from lightning_rad.data.order import Order
from lightning_rad.data.units import units_of
from tests.data.sets import index_of

SHARDS, PER_SHARD, GROUPS, WINDOW, BATCH = 40, 20, 4, 30, 8


class Told:
    """Stands in for a source of shards of 100 bytes each."""

    def __init__(self, room: int) -> None:
        self.room, self.told = room, list[int]()

    def bytes_of(self, shard: int) -> int:
        return 100

    def expect(self, shards: list[int]) -> None:
        self.told += shards


def plan(
    room: int, rank: int = 0, ranks: int = 1, window: int = WINDOW
) -> tuple[Told, ReadAhead, Order, np.ndarray]:
    index = index_of([[[1]] * PER_SHARD] * SHARDS)
    units = units_of(index, "image")
    order = Order(units.shard, seed=4, groups=GROUPS, window=window)
    told = Told(room)
    ahead = ReadAhead(told, order, units, BATCH, (rank, ranks))  # type: ignore[arg-type]
    return told, ahead, order, units.shard


def read_at(order: Order, shard: np.ndarray, position: int, rank: int, ranks: int) -> list[int]:
    found: list[int] = shard[order.take(order.rows(position, BATCH, rank, ranks))[1]].tolist()
    return found


def test_every_shard_is_told_of_a_window_before_it_is_read_over_two_epochs() -> None:
    for rank, ranks in ((0, 1), (1, 2), (3, 4)):
        told, ahead, order, shard = plan(10**9, rank, ranks)
        for position in range(0, 2 * len(shard), BATCH):
            ahead.before(position)
            coming = position + GROUPS * WINDOW - BATCH
            assert set(read_at(order, shard, coming, rank, ranks)) <= set(told.told[-80:])


def test_a_shard_is_told_of_once_while_it_is_wanted_and_again_in_the_next_epoch() -> None:
    told, ahead, _, shard = plan(10**9)
    for position in range(0, len(shard) - GROUPS * WINDOW, BATCH):
        ahead.before(position)
    assert sorted(told.told) == sorted(set(told.told))
    for position in range(len(shard) - GROUPS * WINDOW, 2 * len(shard), BATCH):
        ahead.before(position)
    assert len(told.told) >= 2 * SHARDS


def test_no_more_is_told_of_than_half_the_cache_shared_by_the_ranks_holds() -> None:
    plenty, wide, *_ = plan(10**9, 0, 2, window=200)
    wide.before(0)
    assert len(plenty.told) == SHARDS // 2
    told, ahead, order, shard = plan(2400, 0, 2, window=200)  # half of it is 6 shards a rank
    ahead.before(0)
    first = set(read_at(order, shard, 0, 0, 2))
    assert first <= set(told.told)
    assert len(told.told) <= 6 + BATCH // 2


def test_what_comes_first_is_told_first() -> None:
    told, ahead, order, shard = plan(10**9)
    ahead.before(0)
    wanted = [s for p in range(0, GROUPS * WINDOW, BATCH) for s in read_at(order, shard, p, 0, 1)]
    assert told.told == list(dict.fromkeys(wanted))


def test_going_back_or_far_ahead_tells_anew() -> None:
    told, ahead, order, shard = plan(10**9)
    ahead.before(0)
    for position in (400, 0):
        told.told.clear()
        ahead.before(position)
        assert set(read_at(order, shard, position, 0, 1)) <= set(told.told)


def test_a_local_source_is_told_nothing() -> None:
    told, ahead, *_ = plan(0)
    ahead.before(0)
    assert not told.told


def test_an_evaluation_tells_of_the_next_few() -> None:
    told = Told(1)
    expect_next(told, np.array([2, 3, 5, 8, 9, 11]), 5)  # type: ignore[arg-type]
    assert told.told == [5, 8, 9, 11]
    assert all(a < b for a, b in pairwise(told.told))
