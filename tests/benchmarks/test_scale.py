"""What the scale rehearsal counts, on sets small enough to count by hand."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale_reading as reading
from benchmarks import scale_sets as sets
from lightning_rad.data.order import Order
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import Manifest, Shard, load_index

SHARD = np.repeat(np.arange(8, dtype=np.int32), 50)


def test_a_cache_fetches_again_what_it_let_go() -> None:
    visits = [[0, 1], [2], [0], [1]]
    assert reading.misses(visits, room=3) == 3
    assert reading.misses(visits, room=2) == 5


def test_what_one_batch_reads_is_kept_while_it_is_read() -> None:
    assert reading.misses([[0, 1, 2], [0, 1, 2]], room=1) == 3


def test_ranks_of_a_set_read_each_image_once_and_shards_at_their_borders_twice() -> None:
    order = Order(SHARD, seed=1, groups=8, window=20)
    alone = reading.fetched(order, SHARD, ranks=1)
    assert alone.tolist() == [[1] * 8]
    several = reading.fetched(order, SHARD, ranks=4)
    assert (several.sum(axis=0) >= 1).all()
    assert 8 <= several.sum() <= 8 + 3


def test_a_node_visits_the_shards_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 16)
    monkeypatch.setattr(reading, "NODE", 2)
    order = Order(SHARD, seed=1, groups=8, window=20)
    visits = reading.visits_of_nodes(order, SHARD, ranks=4, epoch=0)
    assert len(visits) == 2
    assert len(visits[0]) == len(SHARD) // 16
    rows = SHARD[order.take(np.arange(16))[1]]  # two turns of eight groups
    halves = np.arange(16) % 8 // 4
    assert visits[1][0] == sorted(set(rows[halves == 1].tolist()))


def test_an_image_across_a_border_of_pages_takes_both() -> None:
    size = np.array([10, 10, 4096])
    assert reading.pages(np.array([0, 4090, 4096]), size) == 4096 * (1 + 2 + 1)


@pytest.mark.slow
def test_the_large_set_holds_other_patients_and_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "PER_SHARD", 8)
    monkeypatch.setattr(sets, "WORKERS", 1)
    sets.radiographs(tmp_path / "pictures", 2)
    real = sets.on_disk(tmp_path / "pictures", tmp_path / "real", 16)
    large = sets.repeated(real, tmp_path / "large", 3)
    index = load_index(large, large.shards)
    source = ShardSource(index)
    found = [bytes(source.image(n)[0]) for n in range(48)]
    assert len(set(found)) == 16, "each image differs from the others, whatever picture it is of"
    assert found[:16] == found[16:32] == found[32:]
    assert len(np.unique(index.studies["patient"])) == 3 * 8
    assert len(load_index(*_of(sets.linked(large, tmp_path / "links", 2))).images) == 96


def _of(manifest: Manifest) -> tuple[Manifest, tuple[Shard, ...]]:
    return manifest, manifest.shards
