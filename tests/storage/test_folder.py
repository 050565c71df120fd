"""One face for folders of a disk, of a web server and of an object store."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_rad.storage.folder import Folder, LocalFolder, open_folder
from lightning_rad.storage.settings import Remote, StorageError
from tests.storage.faulty import FaultyServer, at
from tests.storage.servers import nginx, s3

DATA = random.Random(0).randbytes(300_000)


@pytest.fixture(params=["local", "http", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    bucket = tmp_path / "bucket"
    (bucket / "set").mkdir(parents=True)
    (bucket / "set" / "a b.bin").write_bytes(DATA)
    if request.param == "local":
        yield open_folder(bucket / "set")
        return
    with (nginx if request.param == "http" else s3)(bucket, tmp_path) as url:
        yield open_folder(f"{url}/set/", Remote(timeout=10, retries=1))


def test_whole_files_and_ranges(folder: Folder) -> None:
    assert folder.read("a b.bin") == DATA
    assert folder.read_range("a b.bin", 1000, 5) == DATA[1000:1005]
    assert folder.read_range("a b.bin", 299_000, 1000) == DATA[299_000:]
    assert folder.read_range("a b.bin", 7, 0) == b""
    assert folder.size("a b.bin") == len(DATA)


def test_what_is_not_there_is_said_by_name(folder: Folder) -> None:
    assert folder.size("none") is None
    with pytest.raises((StorageError, FileNotFoundError), match="none"):
        folder.read("none")


def test_only_a_local_file_has_a_path(folder: Folder) -> None:
    path = folder.local("a b.bin")
    assert (path is not None) == isinstance(folder, LocalFolder)
    assert path is None or path.read_bytes() == DATA


@pytest.mark.parametrize("folder", ["local", "s3"], indirect=True)
def test_a_file_is_put(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "new"
    file.write_bytes(DATA * 40)  # several parts of an upload
    folder.put("new.tar", file)
    assert folder.size("new.tar") == len(DATA) * 40
    assert folder.read_range("new.tar", 11_000_000, 100) == (DATA * 40)[11_000_000:11_000_100]


def test_a_server_without_ranges_is_an_error(
    faulty: tuple[FaultyServer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = faulty
    (server.folder / "x").write_bytes(DATA)
    from lightning_rad.storage import door

    real = door.Door._do
    monkeypatch.setattr(
        door.Door, "_do", lambda self, at, method, path, **_: real(self, at, method, path)
    )
    with pytest.raises(StorageError, match=r"/x: the server does not answer requests for ranges"):
        open_folder(url).read_range("x", 0, 10)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        StorageError, match=r"s3:// needs s3fs: pip install 'lightning-rad\[remote\]'"
    ):
        open_folder("s3://bucket/x").read("manifest.json")


def test_no_credentials_are_an_error_and_not_a_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match=r"s3://bucket/x/manifest.json: "):
        open_folder("s3://bucket/x", Remote(retries=0)).read("manifest.json")


def test_a_busy_moment_of_a_manifest_is_not_the_end(faulty: tuple[FaultyServer, str]) -> None:
    server, url = faulty
    (server.folder / "manifest.json").write_bytes(b"{}")
    server.fault = at("503", 0)
    assert open_folder(url).read("manifest.json") == b"{}"
