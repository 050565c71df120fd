"""The stream's contract, over random sets, ranks, threads, batch sizes and interruptions."""

import zlib
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.mixture import divide
from lightning_rad.data.order import Order
from lightning_rad.data.settings import Loading
from lightning_rad.data.stream import Part, Stream
from lightning_rad.data.units import units_of
from lightning_rad.data.unrendered import Unrendered
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.manifest import Index
from tests.data.sets import MadeUpReader, index_of

VIEWS = [RandomView(6, crop=Crop()), RandomView(6, crop=Crop(flip=0.5), noise=Noise())]


def stream_of(
    indexes: list[Index],
    shares: list[int],
    *,
    groups: int,
    window: int = 16,
    unit: str = "image",
    seed: int = 5,
    images: str = "distinct",
    **settings: object,
) -> Stream:
    parts, units_before, images_before = [], 0, 0
    for index, share in zip(indexes, shares, strict=True):
        units = units_of(index, unit)
        order = Order(units.shard, seed=seed, groups=groups, window=window)
        parts.append(Part(order, units, share, units_before, images_before))
        units_before += len(units)
        images_before += len(index.images)
    reader = settings.pop("reader", MadeUpReader())
    ranks = {name: settings.pop(name) for name in ("rank", "ranks") if name in settings}
    return Stream(
        parts, reader, VIEWS, seed=seed, images=images, loading=Loading(**settings), **ranks
    )


def rows_of(batch: StreamBatch) -> list[tuple[int, ...]]:
    """What a batch shows, row by row: unit, patient, images and a CRC of every view."""
    return [
        (
            int(batch.unit[row]),
            int(batch.patient[row]),
            *batch.image[:, row].tolist(),
            *(zlib.crc32(view[row].numpy().tobytes()) for view in batch.pixels),
        )
        for row in range(len(batch.unit))
    ]


sets = st.lists(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=5),
    min_size=2,
    max_size=5,
).filter(lambda shards: sum(len(p) for p in shards) >= 6)


@settings(max_examples=40, deadline=None)
@given(
    shards=sets,
    unit=st.sampled_from(["image", "study", "patient"]),
    images=st.sampled_from(["distinct", "independent"]),
    groups=st.sampled_from([1, 2, 4]),
    turns=st.integers(1, 3),
    data=st.data(),
)
def test_global_batches_do_not_depend_on_ranks_threads_or_interruptions(
    shards: list[list[list[int]]],
    unit: str,
    images: str,
    groups: int,
    turns: int,
    data: st.DataObject,
) -> None:
    index = index_of(shards)
    batch, steps = groups * turns, 7
    kind = {"groups": groups, "unit": unit, "images": images}
    whole = stream_of([index], [batch], threads=0, **kind)
    expected = [rows_of(b) for b in islice(whole.batches((0,)), steps)]

    kill = data.draw(st.integers(0, steps - 1))
    position = (0,)
    seen: list[list[tuple[int, ...]]] = []
    for count in (kill, steps - kill):
        ranks = data.draw(st.sampled_from([r for r in (1, 2, 4) if groups % r == 0]))
        threads = data.draw(st.integers(0, 4))
        shares = []
        for rank in range(ranks):
            part = stream_of([index], [batch], rank=rank, ranks=ranks, threads=threads, **kind)
            shares.append(list(islice(part.batches(position), count)))
        for step in range(count):
            assert len({len(share[step].unit) for share in shares}) == 1
            assert len({share[step].after for share in shares}) == 1
            seen.append([row for share in shares for row in rows_of(share[step])])
            position = shares[0][step].after
    assert seen == expected


@settings(max_examples=40, deadline=None)
@given(shards=sets, unit=st.sampled_from(["image", "study", "patient"]), data=st.data())
def test_a_change_of_batch_size_neither_skips_nor_repeats(
    shards: list[list[list[int]]], unit: str, data: st.DataObject
) -> None:
    """Three data epochs read in batches of changing size are three permutations."""
    index = index_of(shards)
    groups = data.draw(st.sampled_from([1, 2]))
    position, seen = (0,), []
    n = len(units_of(index, unit))
    while position[0] < 3 * n:
        share = groups * data.draw(st.integers(1, 4))
        stream = stream_of([index], [share], groups=groups, unit=unit, threads=0)
        batch = next(iter(stream.batches(position)))
        # rows are group by group; put them back into the order of positions
        seen += batch.unit.reshape(groups, -1).T.ravel().tolist()
        position = batch.after
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_views_are_a_function_of_epoch_unit_and_view_alone() -> None:
    """The same unit in the same data epoch shows the same pixels in another batch and place."""
    index = index_of([[[1]] * 30, [[1]] * 30])

    def epoch_pixels(share: int) -> dict[int, tuple[int, ...]]:
        stream = stream_of([index], [share], groups=2, threads=0)
        steps = 60 // share
        rows = [row for b in islice(stream.batches((0,)), steps) for row in rows_of(b)]
        return {row[0]: row[1:] for row in rows}

    small, large = epoch_pixels(4), epoch_pixels(20)
    assert small == large
    assert len({crc for row in small.values() for crc in row[3:]}) > 100


def test_a_second_data_epoch_shows_other_pixels() -> None:
    index = index_of([[[1]] * 12, [[1]] * 12])
    stream = stream_of([index], [8], groups=2, threads=0)
    rows = [row for b in islice(stream.batches((0,)), 6) for row in rows_of(b)]
    first, second = ({r[0]: r[4:] for r in rows[:24]}, {r[0]: r[4:] for r in rows[24:]})
    assert first.keys() == second.keys()
    assert sum(first[u] == second[u] for u in first) <= 1


def test_two_views_of_one_recipe_differ() -> None:
    index = index_of([[[1]] * 20, [[1]] * 20])
    stream = stream_of([index], [8], groups=2, threads=0)
    stream.views = (VIEWS[0], VIEWS[0])
    for batch in islice(stream.batches((0,)), 3):
        same = [(a == b).all().item() for a, b in zip(*batch.pixels, strict=True)]
        assert sum(same) <= 1


@pytest.mark.parametrize("images", ["distinct", "independent"])
def test_each_view_of_a_patient_shows_one_of_its_images(images: str) -> None:
    index = index_of([[[2, 3], [1], [4]] * 4, [[1, 1]] * 6])
    units = units_of(index, "patient")
    stream = stream_of([index], [6], groups=2, unit="patient", images=images, threads=0)
    pairs = set()
    for batch in islice(stream.batches((0,)), 60):
        for unit, shown in zip(batch.unit.tolist(), batch.image.T.tolist(), strict=True):
            own = units.image[units.first[unit] : units.first[unit + 1]]
            assert set(shown) <= set(own.tolist())
            pairs.add((unit, *shown))
    assert len(pairs) > 3 * len(units)
    several = np.flatnonzero(np.diff(units.first) > 1)
    with_itself = [unit for unit, a, b in pairs if a == b and unit in several]
    assert bool(with_itself) == (images == "independent")


def test_a_patient_with_a_thousand_images_and_one_with_a_single_one_share_a_batch() -> None:
    index = index_of([[[400, 600], [1]], [[1]] * 4])
    stream = stream_of([index], [2], groups=2, unit="patient", threads=0)
    seen = set()
    for batch in islice(stream.batches((0,)), 60):
        for row, unit in enumerate(batch.unit.tolist()):
            pair = batch.image[:, row].tolist()
            if unit == 0:
                assert pair[0] != pair[1]
                assert max(pair) < 1000
                seen.update(pair)
                continue
            assert pair[0] == pair[1] == 999 + unit
            assert not torch.equal(*batch.pixels[:, row])  # two draws of the view
    assert len(seen) > 30


def test_a_mix_keeps_each_sets_share_and_passes() -> None:
    small, large = index_of([[[1]] * 12, [[1]] * 12]), index_of([[[1]] * 40, [[1]] * 41])
    shares = divide(16, {"small": 1.0, "large": 3.0}, 2)
    assert shares == {"small": 4, "large": 12}
    stream = stream_of([small, large], list(shares.values()), groups=2, threads=0)
    seen = [batch.unit.tolist() for batch in islice(stream.batches((0, 0)), 12)]
    assert all(sum(unit < 24 for unit in batch) == 4 for batch in seen)
    assert sorted(u for b in seen[:6] for u in b if u < 24) == list(range(24))
    assert sorted(u for b in seen[6:12] for u in b if u < 24) == list(range(24))
    two = [
        [
            stream_of([small, large], list(shares.values()), groups=2, rank=r, ranks=2, threads=0)
            for r in range(2)
        ]
    ][0]
    shared = [
        [*a.unit.tolist(), *b.unit.tolist()]
        for a, b in zip(*(islice(s.batches((0, 0)), 12) for s in two), strict=True)
    ]
    assert shared == seen


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_the_device_renders_what_the_threads_would(unit: str) -> None:
    index = index_of([[[2, 1], [1]] * 6, [[3]] * 8])
    here = stream_of([index], [6], groups=2, unit=unit, threads=0)
    there = stream_of([index], [6], groups=2, unit=unit, threads=2, render="device")
    for a, b in islice(zip(here.batches((0,)), there.batches((0,)), strict=False), 4):
        assert isinstance(b.pixels, Unrendered)
        assert (a.image == b.image).all()
        assert len(b.pixels.canvas) == len(np.unique(b.image))
        assert (a.pixels.int() - b.pixels.render().int()).abs().max() <= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_slow_samples_do_not_change_the_order(threads: int) -> None:
    index = index_of([[[1]] * 20, [[1]] * 20])
    plain = stream_of([index], [8], groups=2, threads=0)
    slow = stream_of([index], [8], groups=2, threads=threads, reader=MadeUpReader(0.002))
    pairs = zip(islice(plain.batches((0,)), 12), islice(slow.batches((0,)), 12), strict=True)
    assert all(rows_of(a) == rows_of(b) for a, b in pairs)


def test_an_error_in_a_worker_thread_reaches_the_training_loop() -> None:
    class Broken(MadeUpReader):
        def pixels_or_neighbour(self, image: int) -> tuple[np.ndarray, int]:
            raise RuntimeError("disk on fire")

    index = index_of([[[1]] * 20])
    for threads in (0, 2):
        stream = stream_of([index], [4], groups=2, threads=threads, reader=Broken())
        with pytest.raises(RuntimeError, match="disk on fire"):
            next(iter(stream.batches((0,))))


def test_the_length_is_whole_batches_of_all_units() -> None:
    index = index_of([[[1]] * 21, [[1]] * 20])
    assert len(stream_of([index], [8], groups=2)) == 5
