"""A disk that fills up while shards are written: a real one, of a few hundred KiB."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings
from tests.sharding.phantoms import recipe, tree


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 256 KiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "lightning_rad", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named_keeps_whole_shards_and_the_build_goes_on(disk, tmp_path, workers):
    settings = recipe(source={"patients": 60}, image=ImageSettings(None, None), images_per_shard=10)
    build_recipe(settings, tmp_path / "whole", workers=1)
    whole = tree(tmp_path / "whole")
    out = disk / "set"
    with pytest.raises(ValueError, match=rf"{out}: no space left on device; .* run the same comm"):
        build_recipe(settings, out, workers=workers)
    left = tree(out)
    assert not [name for name in left if name.startswith(".build") and name.endswith(".part")]
    assert "manifest.json" not in left
    shards = [name for name in left if name.endswith(".tar")]
    assert len(shards) > 1
    assert all(left[name] == whole[name] for name in shards)
    times = {name: (out / name).stat().st_mtime_ns for name in shards}
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    build_recipe(settings, out, workers=workers)
    assert tree(out) == whole
    noted = {name: (out / name).stat().st_mtime_ns for name in shards}
    assert sum(noted[name] != times[name] for name in shards) <= workers


@pytest.mark.parametrize("size", [0, 1])
def test_a_disk_that_is_full_before_it_begins_is_named(disk, size):
    (disk / "filling").write_bytes(b"x" * ((256 << 10) - size * 4096))
    with pytest.raises(ValueError, match=rf"{disk}/set: no space left on device"):
        build_recipe(recipe(), disk / "set", workers=1)
