"""Shards that are uploaded as they are finished, to a real S3 server on loopback."""

from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
import s3fs

from lightning_rad.manifest import load_manifest
from lightning_rad.sharding import builder, merge, steps, store_ledger, write
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.part import Part
from lightning_rad.storage.door import door
from lightning_rad.storage.folder import RemoteFolder
from lightning_rad.storage.settings import Remote
from tests.sharding.phantoms import recipe, tree
from tests.storage.servers import s3


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A URL, and the folder in which its server keeps what it gets."""
    bucket, scratch = tmp_path / "bucket", tmp_path / "scratch"
    bucket.mkdir()
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    fresh = forkserver.ForkServer()  # that of earlier tests knows no credentials
    for name in ("ensure_running", "connect_to_new_process", "set_forkserver_preload"):
        monkeypatch.setattr(forkserver, name, getattr(fresh, name))
    with s3(bucket, tmp_path) as url:
        yield f"{url}/set", bucket / "set"
    fresh._stop()
    door.cache_clear()


def settings(**changes):
    source = {"patients": 12, "broken": 1} | changes.pop("source", {})
    return recipe(source=source, images_per_shard=6, max_rejected_fraction=0.5, **changes)


def products(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if not name.startswith(".build")}


def unfinished(tmp_path: Path) -> list[str]:
    return [name for name in tree(tmp_path / "scratch") if not name.endswith("lock")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_gets_what_a_folder_gets_and_nothing_stays_here(store, tmp_path, workers):
    url, kept = store
    manifest = build_recipe(settings(), Path(url), workers=workers)
    assert str(manifest.folder) == url
    local = build_recipe(settings(), tmp_path / "local", workers=1)
    assert products(kept) == tree(tmp_path / "local")
    assert load_manifest(url, Remote()) == manifest
    assert (manifest.digest, manifest.shards) == (local.digest, local.shards)
    assert unfinished(tmp_path) == []
    again = build_recipe(settings(), Path(url), workers=1)
    assert again.digest == local.digest


class Killed(BaseException):
    """Stands for SIGKILL where the moment must be exact."""


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (write, "index_shard", 2),
        (RemoteFolder, "put", 5),
        (RemoteFolder, "put", 6),
        (store_ledger.StoreLedger, "note", 2),
        (steps, "save_rejected", 1),
        (store_ledger.StoreLedger, "conclude", 1),
    ],
)
def test_an_upload_that_died_goes_on_from_another_machine(
    store, tmp_path, monkeypatch, owner, name, call
):
    url, kept = store
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            build_recipe(settings(), Path(url), workers=1)
    assert not (kept / "manifest.json").exists()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    done = {path: path.stat().st_mtime_ns for path in noted(kept)}
    build_recipe(settings(), Path(url), workers=1)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    build_recipe(settings(), tmp_path / "local", workers=1)
    assert products(kept) == tree(tmp_path / "local")


def noted(kept: Path) -> list[Path]:
    """The tars of shards that are known to be complete."""
    return [kept / f"{p.stem}.tar" for p in (kept / ".build").glob("*/t*-*.json")]


def test_parts_are_uploaded_and_merged_without_the_source(store, tmp_path, monkeypatch):
    url, kept = store
    monkeypatch.setattr(builder, "load_recipe", lambda _: settings())
    builder.build_part(Path("r"), Path(url), Part(1, 2), workers=1)
    with pytest.raises(ValueError, match=rf"{url}: \d+ of \d+ shards are not built yet"):
        merge(Path(url))
    builder.build_part(Path("r"), Path(url), Part(2, 2), workers=1)
    manifest = merge(Path(url))
    local = build_recipe(settings(), tmp_path / "local", workers=1)
    assert manifest.digest == local.digest
    assert products(kept) == tree(tmp_path / "local")


def test_a_shard_that_a_store_has_lost_is_put_there_again(store, tmp_path):
    url, kept = store
    manifest = build_recipe(settings(), Path(url), workers=1)
    before = products(kept)
    lost = f"{url.removeprefix('s3://')}/{manifest.shards[1].file}"
    s3fs.S3FileSystem(skip_instance_cache=True).rm_file(lost)
    assert not (kept / manifest.shards[1].file).exists()
    build_recipe(settings(), Path(url), workers=1)
    assert products(kept) == before


def test_nothing_in_a_store_is_overwritten(store):
    url, _ = store
    build_recipe(settings(), Path(url), workers=1)
    with pytest.raises(ValueError, match=rf"{url}: holds .build/plan.json of a build with another"):
        build_recipe(settings(source={"seed": 1}), Path(url), workers=1)
    with pytest.raises(ValueError, match=rf"{url}: nothing is overwritten in a store"):
        build_recipe(settings(), Path(url), workers=1, overwrite=True)


def test_a_web_server_takes_no_shards():
    with pytest.raises(ValueError, match=r"http://h/set: shards are uploaded to s3:// and gs://"):
        build_recipe(settings(), Path("http://h/set"), workers=1)
