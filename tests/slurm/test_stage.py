"""Shards are copied to a node whole, checked and once."""

import importlib.util
from pathlib import Path

import pytest

from lightning_rad import sharding
from tests.slurm.jobs import SCRIPTS

_spec = importlib.util.spec_from_file_location("stage", SCRIPTS / "stage.py")
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
stage = _module.stage


def test_a_copy_is_whole_and_is_made_once(tiny_shards: Path, tmp_path: Path) -> None:
    files = [path for path in tiny_shards.iterdir() if path.suffix in (".tar", ".idx")]
    assert stage(tiny_shards, tmp_path / "copy") == len(files)
    assert sharding.verify([tmp_path / "copy"], workers=1).ok
    assert stage(tiny_shards, tmp_path / "copy") == 0


def test_a_copy_that_was_cut_off_goes_on(tiny_shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    number = stage(tiny_shards, copy)
    shard = next(copy.glob("*.tar"))
    shard.rename(shard.with_name(shard.name + ".part"))
    (copy / "manifest.json").unlink()  # it comes last
    assert stage(tiny_shards, copy) == 1 < number
    assert sharding.verify([copy], workers=1).ok
    assert not list(copy.glob("*.part"))


def test_bytes_that_the_manifest_does_not_know_are_refused(
    tiny_shards: Path, tmp_path: Path
) -> None:
    stage(tiny_shards, tmp_path / "source")
    shard = next((tmp_path / "source").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=f"{shard.name} is not what its manifest says"):
        stage(tmp_path / "source", tmp_path / "copy")
    assert not (tmp_path / "copy" / shard.name).exists()
    assert not (tmp_path / "copy" / "manifest.json").exists()
