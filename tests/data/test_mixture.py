"""Shares of a batch, and refusals that name the nearest setting that works."""

import logging
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.mixture import check_ranks, divide, worth
from lightning_rad.manifest import load_manifest
from lightning_rad.sharding import synthesize
from tests.data.test_datamodule import data_of, set_up


@pytest.fixture(scope="module")
def two_sizes(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Two sets, one several times the other: path -> images to train on."""
    few = tmp_path_factory.mktemp("few")
    synthesize(few, patients=16, size=32, seed=7, images_per_shard=8, workers=1)
    return {
        str(folder): sum(shard.images for shard in load_manifest(folder).of_split("train"))
        for folder in (tiny_shards, few)
    }


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    st.integers(1, 16),
    st.integers(6, 60),
)
def test_shares_add_up_in_whole_groups(weights: list[float], groups: int, rounds: int) -> None:
    named = {str(i): w for i, w in enumerate(weights)}
    shares = divide(groups * rounds, named, groups)
    assert sum(shares.values()) == groups * rounds
    assert all(share >= groups and share % groups == 0 for share in shares.values())
    for name, weight in named.items():
        exact = weight / sum(weights) * rounds
        if all(w / sum(weights) * rounds >= 1 for w in weights):
            assert abs(shares[name] / groups - exact) < 1


@pytest.mark.parametrize(
    ("batch", "groups", "said"),
    [(100, 64, "128"), (63, 64, "64"), (0, 8, "8"), (130, 64, "128")],
)
def test_a_batch_that_groups_do_not_divide_is_told_the_nearest(
    batch: int, groups: int, said: str
) -> None:
    with pytest.raises(ValueError, match=rf"data\.global_batch={batch} .*: {said}$"):
        divide(batch, {"a": 1.0}, groups)


@pytest.mark.parametrize(
    ("ranks", "groups", "said"), [(3, 8, "2, 4"), (5, 64, "4, 8"), (100, 64, "64")]
)
def test_ranks_that_do_not_divide_the_groups_are_told_the_nearest(
    ranks: int, groups: int, said: str
) -> None:
    with pytest.raises(ValueError, match=f"{ranks} ranks .*: {said}$"):
        check_ranks(ranks, groups)


def test_weights_must_be_positive_and_sets_must_fit() -> None:
    with pytest.raises(ValueError, match="positive"):
        divide(64, {"a": 1.0, "b": 0.0}, 8)
    with pytest.raises(ValueError, match="at least 24"):
        divide(16, {"a": 1.0, "b": 1.0, "c": 1.0}, 8)


def test_by_size_shares_follow_the_units_and_are_stated_in_the_log(
    tiny_shards: Path, two_sizes: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        data = set_up(data_of(dict.fromkeys(two_sizes, "size"), global_batch=16))
    parts = data._stream.parts
    assert [len(part.units) for part in parts] == list(two_sizes.values())
    shares = divide(16, {path: float(size) for path, size in two_sizes.items()}, 4)
    assert {path: part.share for path, part in zip(two_sizes, parts, strict=True)} == shares
    assert len(set(shares.values())) == 2
    said = " ".join(caplog.messages)
    for path, share in shares.items():
        assert f"data.manifest {path}: {share} of a batch of 16" in said


@pytest.mark.parametrize("stop", [0, 5])
def test_by_size_each_pass_over_a_set_shows_every_unit_once_also_when_resumed(
    two_sizes: dict[str, int], stop: int
) -> None:
    seen: list[int] = []
    positions: tuple[int, ...] = (0, 0)
    for batches in (stop, 40 - stop):  # a resumed run plans its stream anew
        stream = set_up(data_of(dict.fromkeys(two_sizes, "size"), global_batch=16))._stream
        for batch in islice(stream.batches(positions), batches):
            seen += batch.unit.tolist()
            positions = batch.after
    first = 0
    for size in two_sizes.values():
        mine = [unit for unit in seen if first <= unit < first + size]
        assert len(mine) >= 2 * size, "the test should pass over the set twice"
        for one in (mine[:size], mine[size : 2 * size]):
            assert sorted(one) == list(range(first, first + size))
        first += size


def test_sizes_and_numbers_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"data\.manifest: 'b' has the weight size, and others"):
        worth({"a": 1.0, "b": "size"}, {"a": 3, "b": 4})
