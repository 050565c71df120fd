"""An index is read only as the manifest describes it."""

import shutil
from pathlib import Path

import pytest

from lightning_rad.manifest import ManifestError, load_index, load_manifest


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
