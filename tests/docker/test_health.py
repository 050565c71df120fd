"""The image's HEALTHCHECK: a training that no longer moves is unhealthy, everything else is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEALTH = Path(__file__).parents[2] / "docker" / "health.py"


@pytest.fixture
def process(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cmdline").write_bytes(b"tini\0-g\0--\0lightning-rad\0fit\0--run\0/runs/a\0")
    return folder


def health(process: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"LIGHTNING_RAD_HEARTBEAT": str(process.parent / "heartbeat")} | environment
    return subprocess.run(
        [sys.executable, str(HEALTH), str(process)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def aged(path: Path, minutes: float) -> None:
    path.touch()
    then = time.time() - 60 * minutes
    os.utime(path, (then, then))


@pytest.mark.parametrize(("minutes", "status"), [(1, 0), (29, 0), (31, 1)])
def test_the_last_batch_must_not_be_older_than_the_limit(
    process: Path, minutes: float, status: int
) -> None:
    aged(process.parent / "heartbeat", minutes)
    assert health(process).returncode == status


def test_the_limit_can_be_set(process: Path) -> None:
    aged(process.parent / "heartbeat", 5)
    assert health(process, LIGHTNING_RAD_STALE_MINUTES="4").returncode == 1
    assert health(process, LIGHTNING_RAD_STALE_MINUTES="6").returncode == 0


def test_a_fit_without_a_first_batch_turns_unhealthy(process: Path) -> None:
    assert health(process).returncode == 0
    os.utime(process, (time.time() - 3600,) * 2)
    done = health(process)
    assert done.returncode == 1
    assert "no batch yet" in done.stdout


def test_making_shards_is_healthy_however_long_it_takes(process: Path) -> None:
    (process / "cmdline").write_bytes(b"tini\0-g\0--\0lightning-rad\0shards\0build\0outfit\0")
    os.utime(process, (time.time() - 36000,) * 2)
    assert health(process).returncode == 0
