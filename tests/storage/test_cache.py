"""A bounded folder shared by processes: the cap, who goes first, who may not go, what is left."""

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_rad.storage.cache import Cache
from lightning_rad.storage.settings import StorageError

SIZE = 10_000


def digest(n: int) -> str:
    return hashlib.sha256(content(n)).hexdigest()


def content(n: int) -> bytes:
    return random.Random(n).randbytes(SIZE)


def put(cache: Cache, n: int) -> int:
    return cache.put(digest(n), SIZE, lambda part: os.pwrite(part, content(n), 0) and None)


def kept(cache: Cache, n: int) -> None:
    os.close(put(cache, n))
    time.sleep(0.01)  # so that times of use differ


def held(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


def test_the_least_recently_used_goes_first_and_the_cap_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for n in range(3):
        kept(cache, n)
    again = cache.open(digest(0), SIZE)
    assert again is not None
    os.close(again)
    time.sleep(0.01)
    kept(cache, 3)
    there = [n for n in range(4) if (tmp_path / digest(n)).exists()]
    assert there == [0, 2, 3]
    assert held(tmp_path) <= cache.cap


def test_what_is_open_is_not_evicted_and_goes_when_it_is_closed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    opened = [put(cache, n) for n in range(4)]
    assert all((tmp_path / digest(n)).exists() for n in range(4))  # cap plus what is open
    for descriptor in opened:
        os.close(descriptor)
    kept(cache, 4)
    assert held(tmp_path) <= cache.cap


def test_a_file_of_another_size_is_not_given_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    kept(cache, 0)
    with (tmp_path / digest(0)).open("r+b") as file:
        file.truncate(SIZE - 1)
    assert cache.open(digest(0), SIZE) is None


def test_a_damaged_small_file_is_not_given_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)
    cache.keep(digest(0), content(0))
    assert cache.read(digest(0)) == content(0)
    (tmp_path / digest(0)).write_bytes(content(1))
    assert cache.read(digest(0)) is None
    assert cache.read(digest(1)) is None


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(part: int) -> None:
        os.pwrite(part, b"x", 0)
        raise KeyboardInterrupt

    cache = Cache(tmp_path, 2 * SIZE)
    with pytest.raises(KeyboardInterrupt):
        cache.put(digest(0), SIZE, write)
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_the_part_of_a_killed_process_makes_room_and_that_of_a_living_one_does_not(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lightning_rad.storage.cache import Cache\n"
        f"def write(part):\n print('writing', flush=True); time.sleep(60)\n"
        f"Cache(Path(sys.argv[1]), {3 * SIZE}).put('{digest(9)}', {SIZE}, write)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"writing\n"
        cache = Cache(tmp_path, 3 * SIZE)
        for n in range(3):
            kept(cache, n)
        assert list(tmp_path.glob("*.part"))  # counts, and is not deleted
        assert held(tmp_path) <= cache.cap
        other.send_signal(signal.SIGKILL)
        other.wait()
    kept(cache, 5)
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_an_error_that_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, 10 * SIZE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=rf"{tmp_path}: No space left .*data\.remote\.gib"):
        put(cache, 0)
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"data\.remote\.cache .*file/x: "):
        Cache(tmp_path / "file" / "x", SIZE)


def test_only_the_owner_may_look_into_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new", SIZE)
    os.close(put(cache, 0))
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert (tmp_path / "new" / digest(0)).stat().st_mode & 0o077 == 0


def worker(folder: str, seed: int, problems: "multiprocessing.Queue[str]") -> None:
    cache, draw = Cache(Path(folder), 4 * SIZE), random.Random(seed)
    for _ in range(60):
        n = draw.randrange(10)
        descriptor = cache.open(digest(n), SIZE)
        if descriptor is None:
            with cache.alone(digest(n), 30):
                descriptor = cache.open(digest(n), SIZE)
                descriptor = put(cache, n) if descriptor is None else descriptor
        if os.pread(descriptor, SIZE + 1, 0) != content(n):
            problems.put(f"{seed}: other bytes of {n}")
        sizes = []
        for path in Path(folder).iterdir():
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
        if sum(sizes) > (4 + 4 + 1) * SIZE:  # the cap, and one open in each process
            problems.put(f"{seed}: {sum(sizes)} bytes are held")
        os.close(descriptor)


def test_processes_that_evict_each_others_files_read_true_bytes_within_the_cap(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    problems: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=worker, args=(str(tmp_path), n, problems)) for n in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(120)
        assert each.exitcode == 0
    assert problems.empty(), problems.get()
    assert not list(tmp_path.glob("*.part"))
