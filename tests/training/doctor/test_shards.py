"""Shards that cannot be read are named, whatever is wrong with them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_rad.manifest import Manifest, Shard, load_manifest, read_index, write_index
from lightning_rad.training.doctor.shards import open_manifest, places, readable

Harm = Callable[[Manifest, Shard], Shard | None]
"""Spoils a shard in place; returns its new entry of the manifest where the index changed, too."""


def shorten(manifest: Manifest, shard: Shard) -> None:
    file = manifest.root / shard.file
    file.write_bytes(file.read_bytes()[:-512])


def remove(manifest: Manifest, shard: Shard) -> None:
    (manifest.root / shard.file).unlink()


def spoil_index(manifest: Manifest, shard: Shard) -> None:
    file = manifest.root / shard.index
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def spoil_first_image(manifest: Manifest, shard: Shard) -> None:
    _, images = read_index(manifest.root / shard.index)
    file = manifest.root / shard.file
    data = bytearray(file.read_bytes())
    start = int(images[0]["offset"])
    data[start : start + 64] = bytes(64)
    file.write_bytes(data)


def exchange_images(manifest: Manifest, shard: Shard) -> Shard:
    """An index that decodes but has the last image of the shard where the first is."""
    studies, images = read_index(manifest.root / shard.index)
    for field in ("offset", "size"):
        images[field] = images[field][::-1]
    file = manifest.root / shard.index
    write_index(file, studies, images)
    return replace(shard, index_sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def test_good_shards_are_good(tiny_shards: Path) -> None:
    manifest, finding = open_manifest(tiny_shards)
    assert finding.level == "ok"
    assert manifest is not None
    assert manifest.digest in finding.value
    assert readable(manifest).level == "ok"
    found = list(places(manifest))
    assert len(found) == sum(shard.images for shard in manifest.shards)
    file, offset, size = found[-1]
    assert file.read_bytes()[offset : offset + size][-2:] == b"\xff\xd9"  # the end of a JPEG


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (shorten, "bytes, the manifest says"),
        (remove, "No such file"),
        (spoil_index, "not the index that the manifest describes"),
        (spoil_first_image, "key "),
        (exchange_images, "the tar has"),
    ],
)
def test_a_bad_shard_is_named_and_what_is_wrong(
    tiny_shards: Path, tmp_path: Path, harm: Harm, says: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_shards, folder)
    manifest = load_manifest(folder)
    shard = manifest.shards[1]
    changed = harm(manifest, shard)
    if changed is not None:
        rest = (s for s in manifest.shards if s is not shard)
        manifest = replace(manifest, shards=(changed, *rest))
    finding = readable(manifest)
    assert finding.level == "failed"
    assert finding.value.startswith(f"1 of {len(manifest.shards)} are bad: {shard.file}: ")
    assert says in finding.value


def test_many_bad_shards_are_counted(tiny_shards: Path, tmp_path: Path) -> None:
    manifest = load_manifest(tiny_shards)
    gone = replace(manifest, root=tmp_path, shards=manifest.shards * 4)
    many = replace(
        gone, shards=tuple(replace(s, file=f"{i}.tar") for i, s in enumerate(gone.shards))
    )
    value = readable(many).value
    assert value.startswith(f"{len(many.shards)} of {len(many.shards)} are bad")
    assert f"and {len(many.shards) - 5} more" in value


def test_no_manifest_is_a_failure(tmp_path: Path) -> None:
    manifest, finding = open_manifest(tmp_path)
    assert manifest is None
    assert finding.level == "failed"
    assert "no such manifest" in finding.value
