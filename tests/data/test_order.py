"""The order is a pure function: exactly once a data epoch, spread, near in the shards."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.order import Order


def shards_of(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    sizes[0] += max(0, 3 - sum(sizes))
    return Order(
        shards_of(sizes),
        seed=draw(st.integers(0, 2**40)),
        groups=draw(st.integers(1, 9)),
        window=draw(st.integers(1, 60)),
        separation=draw(st.none() | st.integers(1, sum(sizes) // 3)),
    )


def units(order: Order, start: int, stop: int) -> np.ndarray:
    return order.take(np.arange(start, stop))[1]


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(0, 6))
def test_a_data_epoch_holds_every_unit_once(order: Order, epoch: int) -> None:
    n = order.units
    epochs, seen = order.take(np.arange(epoch * n, (epoch + 1) * n))
    assert (epochs == epoch).all()
    assert sorted(seen) == list(range(n))


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(0, 4))
def test_occurrences_of_a_unit_are_separated(order: Order, epoch: int) -> None:
    n = order.units
    seen = units(order, epoch * n, (epoch + 2) * n)
    places = np.argsort(seen, kind="stable").reshape(n, 2)
    assert (places[:, 1] - places[:, 0]).min() >= order.separation


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(0, 500), st.data())
def test_any_slice_is_the_slice_of_the_whole(order: Order, start: int, data: st.DataObject) -> None:
    stop = start + data.draw(st.integers(1, 200))
    again = Order(
        np.repeat(np.arange(len(order._sizes)), order._sizes),
        seed=order.seed,
        groups=order.groups,
        window=order.window,
        separation=order.separation,
    )
    assert (units(order, 0, stop)[start:] == units(again, start, stop)).all()


@settings(max_examples=100, deadline=None)
@given(orders(), st.integers(1, 5), st.integers(0, 20), st.data())
def test_ranks_share_one_global_batch(
    order: Order, turns: int, step: int, data: st.DataObject
) -> None:
    batch = turns * order.groups
    divisors = [r for r in range(1, order.groups + 1) if order.groups % r == 0]
    ranks = data.draw(st.sampled_from(divisors))
    start = step * order.groups
    whole = order.rows(start, batch, 0, 1)
    shares = [order.rows(start, batch, rank, ranks) for rank in range(ranks)]
    assert (np.concatenate(shares) == whole).all()
    assert len({len(s) for s in shares}) == 1
    assert sorted(whole) == list(range(start, start + batch))


def test_every_data_epoch_and_seed_has_another_order() -> None:
    shards = shards_of([50] * 20)
    a = Order(shards, seed=1, groups=4, window=100)
    b = Order(shards, seed=2, groups=4, window=100)
    first, second, other = units(a, 0, 1000), units(a, 1000, 2000), units(b, 0, 1000)
    for x, y in ((first, second), (first, other)):
        assert (x == y).mean() < 0.02
        by_shard = [np.flatnonzero(np.diff(shards[z], prepend=-1))[:5] for z in (x, y)]
        assert not np.array_equal(shards[x][:40], shards[y][:40]), by_shard


def test_a_batch_mixes_shards_nearly_like_a_full_shuffle() -> None:
    """Pairs of rows from one shard, against what drawing without regard to shards would give."""
    sizes, batch = [500] * 64, 640
    shards = shards_of(sizes)
    order = Order(shards, seed=3, groups=16, window=2000)
    seen = shards[units(order, 0, len(shards))].reshape(-1, batch)
    same = [(np.bincount(row) * (np.bincount(row) - 1)).sum() for row in seen]
    expected = batch * (batch - 1) * (500 - 1) / (len(shards) - 1)
    assert np.mean(same) / expected < 1.5
    assert max(np.bincount(row).max() for row in seen) < batch / 8


def test_a_rank_reads_few_shards_once() -> None:
    """700 shards of 1,000 units over 64 ranks: whole shards fetched, against the set's size."""
    order = Order(shards_of([1000] * 700), seed=0, groups=64, window=4096)
    shard = shards_of([1000] * 700)
    n = order.units
    for epoch in (0, 1):
        positions = np.arange(epoch * n, (epoch + 1) * n)
        rank = positions % 64
        touched = len(np.unique(rank * 700 + shard[order.take(positions)[1]]))
        assert touched / 700 <= 1.1
    mine = order.take(np.arange(5, n, 64))[1]
    open_at_once = [len(np.unique(shard[mine[i : i + 64]])) for i in range(0, len(mine), 64)]
    assert max(open_at_once) <= 6


def test_the_middle_of_a_large_run_is_reached_at_once() -> None:
    """700,000 units, 90 % of data epoch 7: under a second of one core, the best of three tries."""

    def seconds() -> float:
        begin = time.process_time()
        order = Order(shards_of([1000] * 700), seed=0, groups=64, window=4096)
        order.take(np.arange(7 * 700_000 + 630_000, 7 * 700_000 + 634_096))
        return time.process_time() - begin

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.parametrize("shards", [100, 10_000])
def test_a_seam_makes_no_more_than_the_windows_it_touches(shards: int) -> None:
    """Neither a start nor a resume nor a seam takes longer for a set that is larger."""
    order = Order(np.repeat(np.arange(shards), 1000), seed=0, groups=8, window=512, separation=999)
    for start in (0, order.units // 8 * 72 - 4096, order.units * 9 - 4096):
        order.take(np.arange(start, start + 8192))
    made = order._windows.cache_info().misses * order._span
    assert made <= 8 * 4096 * 10


@settings(max_examples=50, deadline=None)
@given(orders(), st.integers(1, 4096), st.integers(0, 3))
def test_how_many_units_are_made_at_a_time_is_of_no_consequence(
    order: Order, least: int, epoch: int
) -> None:
    n = order.units
    want = units(order, epoch * n, (epoch + 2) * n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_rad.data.order._LEAST", least)
        again = Order(
            np.repeat(np.arange(len(order._sizes)), order._sizes),
            seed=order.seed,
            groups=order.groups,
            window=order.window,
            separation=order.separation,
        )
        assert (units(again, epoch * n, (epoch + 2) * n) == want).all()


def test_the_order_stays_what_it_was() -> None:
    """A change of these numbers breaks the resume of every checkpoint: bump the format instead."""
    order = Order(shards_of([3, 4, 5]), seed=7, groups=2, window=4)
    first = [9, 1, 8, 4, 7, 3, 10, 2, 11, 5, 0, 6]
    assert units(order, 0, 24).tolist() == [*first, 3, 7, 1, 6, 2, 9, 0, 8, 4, 10, 5, 11]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"groups": 0}, "groups"),
        ({"window": 0}, "window"),
        ({"separation": 6}, r"1 \.\. 4"),
        ({"separation": 0}, "separation"),
    ],
)
def test_impossible_settings_are_named(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Order(shards_of([6, 6]), **({"seed": 0, "groups": 2, "window": 4} | arguments))


def test_a_set_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 units"):
        Order(shards_of([2]), seed=0, groups=1, window=1)
