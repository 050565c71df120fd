"""Room, speed and clock of disks: what is measured here, what is said of planted numbers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from lightning_rad.training.doctor import disk
from lightning_rad.training.doctor.disk import Disk, Reads, measure, measure_reads, run_disk

GOOD = Disk(free=1 << 40, write=1e9, read=1e9, fsync=0.002, ahead=0.0)


def test_a_measurement_leaves_nothing_behind_and_makes_no_folder(tmp_path: Path) -> None:
    found = measure(tmp_path / "runs/x", written=1 << 20)
    assert not list(tmp_path.iterdir())
    assert found.free > 0
    assert found.write > 0
    assert found.read > 0
    assert 0 < found.fsync < 10
    assert abs(found.ahead) < 0.1


def test_a_file_system_whose_clock_is_ahead_is_seen(tmp_path: Path) -> None:
    fstat = Path.stat

    class Later:
        def __init__(self, path: Path) -> None:
            self.st_mtime = fstat(path).st_mtime + 5

    with (
        patch.object(Path, "stat", lambda path, **_: Later(path)),
        patch.object(Path, "exists", os.path.exists),
    ):
        found = measure(tmp_path, written=1 << 20)
    assert 4.9 < found.ahead < 5.1


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, "ok", ""),
        ({"free": 10 << 30}, "warning", "free some"),
        ({"free": 1 << 30}, "failed", "no checkpoint fits"),
        ({"write": 1e6}, "warning", "checkpoints hold the run up"),
        ({"fsync": 0.5}, "warning", "each flushed file waits"),
        ({"ahead": 3.0}, "warning", "NTP"),
        ({"ahead": -3.0}, "warning", "NTP"),
    ],
)
def test_a_bad_disk_is_told(
    tmp_path: Path, changes: dict[str, float], level: str, says: str
) -> None:
    findings = run_disk(tmp_path, replace(GOOD, **changes))  # type: ignore[arg-type]
    worse = [f for f in findings if f.level != "ok"]
    assert [f.level for f in worse] == ([level] if says else [])
    assert all(says in f.remedy for f in worse)


def test_reads_are_of_the_places_asked_for(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.tar", "b.tar")]
    for file in files:
        file.write_bytes(os.urandom(1 << 20))
    places = [(file, 4096 * i, 1000) for file in files for i in range(20)]
    read = []
    pread = os.pread

    def watched(descriptor: int, count: int, offset: int) -> bytes:
        read.append((count, offset))
        return pread(descriptor, count, offset)

    with patch.object(disk.os, "pread", watched):
        found = measure_reads(files, places)
    assert sorted(read) == sorted((count, offset) for _, offset, count in places)
    assert found.images > 0
    assert found.sequential > 0


@pytest.mark.parametrize(
    ("found", "level"),
    [(Reads(1e9, 1e4), "ok"), (Reads(1e7, 1e4), "warning"), (Reads(1e9, 50), "warning")],
)
def test_slow_shards_are_told(found: Reads, level: str) -> None:
    finding = disk.shard_reads(Path("shards"), found)
    assert finding.level == level
    assert ("local disk" in finding.remedy) == (level != "ok")
