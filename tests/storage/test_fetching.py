"""Whole files of a store into the cache: verified, once, whatever the network does."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import pytest

from lightning_rad.storage import fetching
from lightning_rad.storage.fetching import Fetcher
from lightning_rad.storage.folder import RemoteFolder, Stored
from lightning_rad.storage.remote import RemoteFiles
from lightning_rad.storage.settings import Remote, StorageError
from tests.storage.faulty import FaultyServer, always, at, every, never

Served = tuple[FaultyServer, str]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BLOCK", 10_000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_rad.storage.patience._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("lightning_rad.storage.patience._LONGEST_PAUSE", 0.1)


def remote(tmp_path: Path, **given: float) -> Remote:
    return Remote(cache=str(tmp_path / "cache"), **({"timeout": 5.0} | given))  # type: ignore[arg-type]


def stored(served: Served, settings: Remote, name: str = "a.tar", size: int = 105_000) -> Stored:
    data = random.Random(name).randbytes(size)
    (served[0].folder / name).write_bytes(data)
    folder = RemoteFolder(served[1], settings)
    return Stored(folder, name, size, hashlib.sha256(data).hexdigest())


def contents(descriptor: int, file: Stored) -> bytes:
    try:
        return os.pread(descriptor, file.bytes + 1, 0)
    finally:
        os.close(descriptor)


def test_a_file_comes_in_blocks_over_several_connections_and_once(
    either: Served, tmp_path: Path
) -> None:
    settings = remote(tmp_path, connections=4)
    file = stored(either, settings)
    either[0].latency = 0.05
    fetcher = Fetcher(settings)
    for _ in range(3):
        data = contents(fetcher.fetch(file), file)
        assert hashlib.sha256(data).hexdigest() == file.sha256
    assert either[0].asked["a.tar"] == 11
    assert either[0].most_at_once == 4


@pytest.mark.parametrize("fault", ["reset", "cut", "503", "429", "500"])
def test_failures_that_pass_are_tried_again(either: Served, tmp_path: Path, fault: str) -> None:
    file = stored(either, settings := remote(tmp_path))
    either[0].fault = every(3, fault)
    data = contents(Fetcher(settings).fetch(file), file)
    assert hashlib.sha256(data).hexdigest() == file.sha256
    assert either[0].faults[fault] > 3


def test_a_stalled_answer_is_given_up_and_asked_for_again(either: Served, tmp_path: Path) -> None:
    file = stored(either, settings := remote(tmp_path, timeout=0.5))
    either[0].fault = at("stall", 0, 5)
    begun = time.monotonic()
    data = contents(Fetcher(settings).fetch(file), file)
    assert hashlib.sha256(data).hexdigest() == file.sha256
    assert time.monotonic() - begun < 10


def test_a_server_that_always_stalls_is_an_error_that_names_the_url_and_not_a_hang(
    either: Served, tmp_path: Path
) -> None:
    file = stored(either, settings := remote(tmp_path, timeout=0.2, retries=2))
    either[0].fault = always("stall")
    with pytest.raises(StorageError, match=rf"{either[1]}/a.tar: .*after 3 tries"):
        Fetcher(settings).fetch(file)


@pytest.mark.parametrize(
    ("fault", "told"), [("404", "not there"), ("403", "access denied"), ("416", "416")]
)
def test_failures_that_stay_are_not_tried_again(
    either: Served, tmp_path: Path, fault: str, told: str
) -> None:
    file = stored(either, settings := remote(tmp_path, connections=1))
    either[0].fault = always(fault)
    with pytest.raises(StorageError, match=f"{either[1]}/a.tar: .*{told}"):
        Fetcher(settings).fetch(file)
    assert either[0].requests == 1


def test_wrong_bytes_are_fetched_once_more(either: Served, tmp_path: Path) -> None:
    file = stored(either, settings := remote(tmp_path))
    either[0].fault = at("wrong", 4)
    data = contents(Fetcher(settings).fetch(file), file)
    assert hashlib.sha256(data).hexdigest() == file.sha256
    assert either[0].asked["a.tar"] == 22


def test_wrong_bytes_twice_are_an_error_and_never_kept(either: Served, tmp_path: Path) -> None:
    file = stored(either, settings := remote(tmp_path))
    either[0].fault = always("wrong")
    fetcher = Fetcher(settings)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"a.tar: its sha256 is .* the manifest says"):
            fetcher.fetch(file)
    assert not [
        p for p in fetcher.cache.folder.iterdir() if p.suffix != ".lock" and p.name != "lock"
    ]


@pytest.mark.parametrize("fault", ["gone", None])
def test_a_truncated_object_is_an_error(either: Served, tmp_path: Path, fault: str | None) -> None:
    file = stored(either, settings := remote(tmp_path, retries=2))
    either[0].fault = never if fault is None else always(fault)
    if fault is None:  # cut within its last block
        whole = either[0].folder / "a.tar"
        whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(StorageError, match=r"/a\.tar: "):
        Fetcher(settings).fetch(file)


def test_many_threads_that_want_a_file_fetch_it_once(either: Served, tmp_path: Path) -> None:
    settings = remote(tmp_path)
    files = [stored(either, settings, f"{n}.tar", 25_000) for n in range(4)]
    either[0].latency = 0.02
    reader = RemoteFiles(files, 2)
    wrong: list[int] = []

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(50):
            row, at = draw.randrange(4), draw.randrange(24_000)
            whole = (either[0].folder / f"{row}.tar").read_bytes()
            if reader.read(row, at, 1000) != whole[at : at + 1000]:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert set(either[0].asked.values()) == {3}


def test_what_was_expected_is_there_when_it_is_read(either: Served, tmp_path: Path) -> None:
    settings = remote(tmp_path)
    files = [stored(either, settings, f"{n}.tar", 25_000) for n in range(4)]
    either[0].latency = 0.5
    reader = RemoteFiles(files, 4)
    reader.expect(range(4))
    time.sleep(3)
    begun = time.monotonic()
    for row in range(4):
        reader.read(row, 0, 100)
    assert time.monotonic() - begun < 0.5


def test_a_failed_expectation_is_tried_again_when_it_is_needed(
    either: Served, tmp_path: Path
) -> None:
    file = stored(either, remote(tmp_path, retries=0, connections=1))
    either[0].fault = always("503")
    reader = RemoteFiles([file], 4)
    reader.expect([0])
    time.sleep(0.5)
    either[0].fault = never
    assert reader.read(0, 7, 3) == (either[0].folder / "a.tar").read_bytes()[7:10]


def test_an_outage_that_ended_leaves_nothing_behind(either: Served, tmp_path: Path) -> None:
    file = stored(either, remote(tmp_path, retries=0))
    reader = RemoteFiles([file], 4)
    either[0].fault = always("503")
    with pytest.raises(StorageError):
        reader.read(0, 0, 10)
    either[0].fault = never
    assert len(reader.read(0, 0, 10)) == 10


def test_without_a_cache_each_read_is_a_request_and_nothing_is_kept(
    either: Served, tmp_path: Path
) -> None:
    file = stored(either, remote(tmp_path, gib=0.0))
    reader = RemoteFiles([file], 4)
    reader.expect([0])
    assert reader.read(0, 5000, 20) == (either[0].folder / "a.tar").read_bytes()[5000:5020]
    assert either[0].requests == 1
    assert not (tmp_path / "cache").exists()
