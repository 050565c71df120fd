"""Every report of a split, in order, from any number of sets."""

from pathlib import Path

import pytest

from lightning_rad.data.corpus import report_texts
from lightning_rad.data.source import BadSampleError
from lightning_rad.manifest import ManifestError, load_manifest
from lightning_rad.modalities.report import parse_report
from lightning_rad.sharding import index
from tests.sharding.test_foreign import study, write_shards


def test_every_study_of_the_split_gives_its_report_once(
    tiny_shards: Path, other_shards: Path
) -> None:
    both = list(report_texts([tiny_shards, other_shards]))
    one = list(report_texts([other_shards]))
    assert both == [*report_texts([tiny_shards]), *one]
    shards = load_manifest(other_shards).of_split("train")
    assert len(one) == sum(shard.studies for shard in shards)
    assert len({name for name, _ in both}) == len(both)
    for _, data in both:
        assert parse_report(data.decode()).how == "findings+impression"


def test_splits_do_not_mix(tiny_shards: Path) -> None:
    train, val = (set(report_texts([tiny_shards], split=split)) for split in ("train", "val"))
    assert train
    assert val
    assert not train & val
    with pytest.raises(ManifestError, match="no shard of split 'other'"):
        list(report_texts([tiny_shards], split="other"))


def test_what_is_stored_comes_as_it_is_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    bodies = {1: b"Clear.\n", 2: b"\xff\xfe", 4: b"Second shard."}
    write_shards(
        folder, [study(n, **({"txt": bodies[n]} if n in bodies else {})) for n in range(5)]
    )
    index(folder)
    told = list(report_texts([folder]))
    assert [data for _, data in told] == [bodies.get(n, b"") for n in range(5)]
    assert told[4][0].endswith("shard-000001.tar, key p2/s4")


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    write_shards(folder, [study(n, txt=b"Clear.") for n in range(3)])
    index(folder)
    (shard,) = folder.glob("*.tar")
    shard.write_bytes(shard.read_bytes()[:1024])
    with pytest.raises(BadSampleError, match=r"shard-000000\.tar, key p0/s0"):
        list(report_texts([folder]))
