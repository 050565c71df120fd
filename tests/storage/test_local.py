"""Files of this machine: exact bytes, few open at once, views that outlive everything."""

import os
import pickle
import random
import threading
from pathlib import Path

import pytest

from lightning_rad.storage import local
from lightning_rad.storage.local import LocalFiles


@pytest.fixture(params=["ext4", "nfs", ""], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file system that all files seem to lie on; "" is one nobody knows."""
    monkeypatch.setattr(local, "kind_of", lambda _: request.param)
    return str(request.param)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{n}.tar" for n in range(6)]
    for n, path in enumerate(made):
        path.write_bytes(random.Random(n).randbytes(20_000))
    return made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_few_files_are_open_at_once(paths: list[Path]) -> None:
    files, before = LocalFiles(paths, 2), descriptors()
    for row in range(6):
        assert files.read(row, 10, 20) == paths[row].read_bytes()[10:30]
    assert descriptors() - before == 2


def test_a_read_past_the_end_is_short(paths: list[Path]) -> None:
    files = LocalFiles(paths, 2)
    assert len(files.read(0, 19_990, 20)) == len(files.read(0, 19_990, 20, mapped=True)) == 10
    paths[1].write_bytes(b"")
    assert len(files.read(1, 0, 20)) == len(files.read(1, 0, 20, mapped=True)) == 0


def test_a_view_outlives_the_table_of_open_files_and_the_file(paths: list[Path]) -> None:
    files = LocalFiles(paths, 1)
    wanted = [path.read_bytes()[100:200] for path in paths]
    views = [files.read(row, 100, 100, mapped=True) for row in range(6)]
    del files
    for path in paths:
        path.unlink()
    assert [bytes(view) for view in views] == wanted
    assert all(isinstance(view, memoryview) and view.readonly for view in views)


def test_what_no_server_can_take_away_is_not_copied(paths: list[Path], system: str) -> None:
    given = LocalFiles(paths, 2).read(0, 10, 20)
    assert isinstance(given, memoryview if system == "ext4" else bytes)


def test_a_mapping_goes_with_its_last_view(paths: list[Path]) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(paths[0]))

    files = LocalFiles(paths, 1)
    view = files.read(0, 0, 10, mapped=True)
    assert mapped() == 1
    files.read(1, 0, 1)
    assert mapped() == 1
    del view
    assert mapped() == 0


def test_threads_that_push_each_others_files_out_read_true_bytes(paths: list[Path]) -> None:
    files, wrong = LocalFiles(pickle.loads(pickle.dumps(LocalFiles(paths, 1)))._paths, 1), []
    whole = [path.read_bytes() for path in paths]

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(3000):
            row, at = draw.randrange(6), draw.randrange(19_000)
            try:
                found = bytes(files.read(row, at, 500, mapped=at % 2 == 0))
                wrong.extend([row] * (found != whole[row][at : at + 500]))
            except OSError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_kind_of_a_file_system_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert local.kind_of(os.stat("/proc/self").st_dev) == "proc"
    assert local.kind_of(os.makedev(4000, 1)) == ""
