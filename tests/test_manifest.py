"""An index is read only as the manifest describes it."""

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_rad.manifest import (
    IMAGE,
    STUDY,
    ManifestError,
    load_index,
    load_manifest,
    read_index,
)


def test_one_flipped_byte_of_an_index_is_named_before_it_is_used(
    tiny_shards: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_shards, tmp_path / "copy")
    manifest = load_manifest(copy)
    shard = manifest.of_split("train")[0]
    load_index(manifest, [shard])
    file = copy / shard.index
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(ManifestError, match=rf"{shard.index}: not the index"):
        load_index(manifest, [shard])


def test_a_missing_index_is_named(tiny_shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_shards, tmp_path / "copy")
    manifest = load_manifest(copy)
    shard = manifest.of_split("train")[0]
    (copy / shard.index).unlink()
    with pytest.raises(ManifestError, match=rf"{shard.index}: missing"):
        load_index(manifest, [shard])


def test_indexes_are_joined_as_they_are_read_one_at_a_time(tiny_shards: Path) -> None:
    """Memory at the peak is that of the joined index and of few of its parts."""
    manifest = load_manifest(tiny_shards)
    shards = manifest.of_split("train") * 50
    tracemalloc.start()
    index = load_index(manifest, shards)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = sum(a.nbytes for a in (index.studies, index.images, index.shard_of_study))
    assert peak < 2 * held
    first, second = (slice(k * len(index.studies) // 50, None) for k in (0, 1))
    assert index.studies.dtype == STUDY
    assert index.images.dtype == IMAGE
    assert (index.studies[first][: -second.start] == index.studies[second]).all()
    study, image = read_index(tiny_shards / shards[-1].index)
    assert (index.images["offset"][-len(image) :] == image["offset"]).all()
    assert (
        index.images["study"][-len(image) :] == image["study"] + len(index.studies) - len(study)
    ).all()
    assert (index.shard_of_study[-len(study) :] == len(shards) - 1).all()
    assert index.files[-1] == tiny_shards / shards[-1].file


def test_an_index_of_other_counts_than_the_manifest_says_is_named(tiny_shards: Path) -> None:
    manifest = load_manifest(tiny_shards)
    shard = manifest.of_split("train")[0]
    with pytest.raises(ManifestError, match=rf"{shard.index}: holds .* the manifest says"):
        load_index(manifest, [replace(shard, images=shard.images + 1)])
