"""Saves go on beside training, take what training was at, and fail without harm."""

import errno
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_rad.checkpoints import Keep, Writer, checkpoints, named, newest, read, verify
from lightning_rad.checkpoints import write as write_module
from lightning_rad.checkpoints.folders import REPLACED
from tests.checkpoints.trees import saved, trained
from tests.training.test_resume import assert_same_bits


def test_training_may_change_its_tensors_as_soon_as_save_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, commit = threading.Event(), write_module.write

    def late(*args: Any, **how: Any) -> None:
        gate.wait(10)
        commit(*args, **how)

    monkeypatch.setattr("lightning_rad.checkpoints.writer.write", late)
    writer, x = Writer(), torch.arange(6.0).view(2, 3)
    writer.save({"state_dict": {"x": x, "y": x.t()}}, tmp_path / named(1), step=1)
    assert not checkpoints(tmp_path)  # back before anything is written
    x.mul_(100)
    gate.set()
    assert writer.wait() is None
    state = read(tmp_path / named(1))["state_dict"]
    assert state["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["y"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_one_save_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, commit = [0], [0], write_module.write

    def slow(*args: Any, **how: Any) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        commit(*args, **how)
        inside[0] -= 1

    monkeypatch.setattr("lightning_rad.checkpoints.writer.write", slow)
    writer, x = Writer(), torch.zeros(3)
    for step in range(1, 5):
        x.fill_(step)
        writer.save({"x": x}, tmp_path / named(step), step=step)
    assert writer.wait() is None
    assert most == [1]
    for step, path in checkpoints(tmp_path).items():
        assert read(path)["x"].tolist() == [step] * 3


def test_it_is_on_disk_before_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is flushed, then the folder, then it is renamed, then its parent is flushed."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def flushed(handle: int) -> None:
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamed(self: Path, to: Any) -> Path:
        events.append(f"{self.name} -> {Path(to).name}")
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    path = saved(tmp_path, 1)
    part = f"{path.name}.part"
    at = events.index(f"{part} -> {path.name}")
    files = {name for name in os.listdir(path) if name != ".metadata"} | {".metadata.tmp"}
    assert set(events[:at]) >= files | {part}
    assert events[at - 2 : at] == ["contents.json", part]
    assert events[at + 1 :] == [tmp_path.name]


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1)
    for bad in (float("nan"), float("inf"), float("-inf")):
        tree = trained()
        tree["state_dict"]["1.weight"][3] = bad
        tree["state_dict"]["1.bias"][3] = bad
        caplog.clear()
        assert not Writer().save(tree, tmp_path / named(2), step=2)
        assert [r.levelno for r in caplog.records] == [logging.WARNING]
        assert "state_dict.1.weight holds an infinity or a NaN (1 more tensors do)" in caplog.text
        assert "step-00000002" in caplog.text
    assert list(checkpoints(tmp_path)) == [1]
    assert newest(tmp_path) is not None


def test_large_finite_weights_and_other_infinities_are_saved(tmp_path: Path) -> None:
    """The norm of the weights would overflow; state of an optimiser may hold what it likes."""
    tree = trained()
    tree["state_dict"]["1.weight"].fill_(3e38)
    tree["state_dict"]["none"] = torch.empty(0)
    tree["optimizer_states"][0]["state"][0]["exp_avg"].fill_(float("inf"))
    assert_same_bits(read(saved(tmp_path, 1, tree)), tree)


def test_the_newest_stay_and_the_multiples_for_ever(tmp_path: Path) -> None:
    for step in (2, 4, 5, 6, 7, 8, 11):
        saved(tmp_path, step, keep=Keep(2, every=4))
    assert list(checkpoints(tmp_path)) == [4, 8, 11]
    saved(tmp_path, 12, keep=Keep(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000012"]


def test_going_back_sets_later_checkpoints_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a run that went back to step 2 would go on from step 6 the next time."""
    for step in (2, 4, 6):
        saved(tmp_path, step, keep=Keep(3))
    (tmp_path / named(6) / "plain.pt").unlink()  # damaged ones, too, do not push new ones out
    saved(tmp_path, 3, keep=Keep(2))
    assert list(checkpoints(tmp_path)) == [2, 3]
    assert newest(tmp_path) == tmp_path / named(3)
    assert (tmp_path / "step-00000006.superseded").is_dir()
    assert "step-00000004.superseded" in caplog.text


def test_a_step_that_is_saved_again_replaces_itself(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / named(1) / "plain.pt").unlink()
    saved(tmp_path, 1, keep=Keep(2))
    verify(tmp_path / named(1))
    assert [p.name for p in tmp_path.iterdir()] == [named(1)]


def test_a_step_that_is_saved_again_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is killed after any change of names; the next writer clears up."""
    moments: list[str] = []

    def looked(change: Callable[..., Any]) -> Callable[..., Any]:
        def then_look(*args: Any, **how: Any) -> Any:
            changed = change(*args, **how)
            found = newest(tmp_path)
            assert found is not None
            moments.append(found.name)
            if moments[-2:] == [named(1) + REPLACED, named(1)]:
                shutil.copytree(tmp_path, killed)
            return changed

        return then_look

    killed = tmp_path.with_name("killed")
    saved(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", looked(Path.rename))
        patched.setattr("shutil.rmtree", looked(shutil.rmtree))
        saved(tmp_path, 1, keep=Keep(1))
    assert named(1) + REPLACED in moments
    assert [p.name for p in tmp_path.iterdir()] == [named(1)]
    assert sorted(p.name for p in killed.iterdir()) == [named(1), named(1) + REPLACED]
    saved(killed, 2, keep=Keep(2))
    assert sorted(p.name for p in killed.iterdir()) == [named(1), named(2)]


def test_a_checkpoint_whose_successor_never_came_is_one_like_any_other(tmp_path: Path) -> None:
    saved(tmp_path, 1).rename(tmp_path / (named(1) + REPLACED))
    assert newest(tmp_path) == tmp_path / (named(1) + REPLACED)
    assert read(tmp_path / (named(1) + REPLACED))
    saved(tmp_path, 2, keep=Keep(2))
    assert list(checkpoints(tmp_path)) == [1, 2]
    saved(tmp_path, 3, keep=Keep(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == [named(2), named(3)]


def test_a_writer_clears_what_killed_writers_left(tmp_path: Path) -> None:
    for name in ("step-00000001.part", "step-00000002.old.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plain.pt").write_bytes(b"x")
    newest(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # readers leave all as it is
    saved(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == [named(3)]


def test_a_failed_save_is_told_leaves_nothing_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = Writer()
    monkeypatch.setattr(write_module, "write_through", full)
    assert writer.save(trained(), tmp_path / named(2), step=2)
    error = writer.wait()
    assert "No space left on device" in str(error)
    assert str(tmp_path / named(2)) in str(error)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == [named(1)]
    monkeypatch.undo()
    assert writer.save(trained(), tmp_path / named(3), step=3)
    assert writer.wait() is None
    assert list(checkpoints(tmp_path)) == [1, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB; only root can have one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, fault: Callable[..., None]) -> None:
    """The tensors' file meets the end of the disk inside torch.save."""
    saved(small_disk, 1)
    writer = Writer()
    large = {"state_dict": {"x": torch.zeros(300_000), "y": torch.ones(300_000)}}
    assert writer.save(large, small_disk / named(2), step=2)
    error = writer.wait()
    assert "OSError: [Errno 28] No space left on device" in str(error)
    assert [p.name for p in small_disk.iterdir()] == [named(1)]
    verify(small_disk / named(1))
    saved(small_disk, 3)
    assert list(checkpoints(small_disk)) == [1, 3]
    fault(
        "the disk is full when a checkpoint is written",
        injected="a file system of 1 MiB",
        outcome="a warning with the cause, training goes on, the next save is tried",
        lost=0,
        identical="-",
    )
