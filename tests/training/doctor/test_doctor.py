"""`lightning-rad doctor` as a command: its lines, its JSON, its exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_rad.training.doctor import bandwidth, disk, software
from lightning_rad.training.doctor.finding import Finding, graded, size, worst
from tests.command import lightning_rad

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """Runs it for real but for the all-reduce, the compiler and most of the bytes to write."""
    for name in ("RANK", "SLURM_JOB_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bandwidth, "between_two", lambda _: Finding("ok", "all-reduce", "fast"))
    monkeypatch.setattr(software, "compiler", lambda: Finding("ok", "C++ compiler", "there"))
    measure = disk.measure
    monkeypatch.setattr(disk, "measure", lambda folder: measure(folder, written=1 << 20))

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ending:
            lightning_rad("doctor", "--run", str(tmp_path / "run"), *arguments)
        assert isinstance(ending.value.code, int)
        return ending.value.code, capsys.readouterr().out

    return run


def test_each_line_has_a_level_a_name_and_a_value(doctor: Doctor, tiny_shards: Path) -> None:
    code, out = doctor("--manifest", str(tiny_shards), "--threads", "0")
    assert code == 0
    lines = out.splitlines()
    assert all(re.match(r"(ok|warning) +\S.*: \S", line) for line in lines)
    for what in ("python", "torch", "driver", "CPU", "memory", "/dev/shm", "open files", "all-red"):
        assert any(re.match(rf"\w+ +{what}", line) for line in lines), what
    for what in ("room in", "speed of", "clock of", "manifest", "shards of", "reading"):
        assert any(what in line for line in lines), what


def test_what_is_wrong_gives_status_1(doctor: Doctor, tmp_path: Path) -> None:
    code, out = doctor("--manifest", str(tmp_path))
    assert code == 1
    [line] = [line for line in out.splitlines() if line.startswith("failed")]
    assert "no such manifest" in line


def test_a_run_folder_that_cannot_be_written_is_a_failure(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    code, out = doctor()
    assert code == 1
    assert "failed   writing" in out


def test_json_holds_every_finding(doctor: Doctor) -> None:
    code, out = doctor("--json")
    body = json.loads(out)
    assert code == 0
    assert body["worst"] == "warning"
    assert {"level", "what", "value", "remedy"} == set(body["findings"][0])


@pytest.mark.parametrize(
    ("arguments", "threads"), [(("--threads", "63"), 63), (("--devices", "9"), 4)]
)
def test_cores_are_held_against_threads_of_all_ranks(
    doctor: Doctor, arguments: tuple[str, str], threads: int
) -> None:
    _, out = doctor(*arguments)
    [line] = [line for line in out.splitlines() if " CPU: " in line]
    ranks = 9 if arguments[0] == "--devices" else 1
    assert f"{ranks} rank(s) of {threads} threads" in line


@pytest.mark.parametrize("arguments", [("--threads", "-1"), ("--devices", "0")])
def test_numbers_that_mean_nothing_are_refused(doctor: Doctor, arguments: tuple[str, str]) -> None:
    assert doctor(*arguments)[0] == 2


def test_a_master_that_is_not_to_be_found_ends_the_wait_before_it_begins(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "nobody.invalid"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    code, out = doctor()
    assert code == 1
    assert "failed   MASTER_ADDR: nobody.invalid" in out


def test_the_worst_counts() -> None:
    good = Finding("ok", "x", "y")
    assert worst([]) == worst([good]) == "ok"
    assert worst([good, replace(good, level="warning")]) == "warning"
    assert worst([replace(good, level="failed"), replace(good, level="warning"), good]) == "failed"
    assert graded("x", "y", failed="a", warning="b").level == "failed"
    assert str(graded("x", "y", warning="b")) == "warning  x: y (b)"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (80 << 30, "80 GiB"), (3 << 40, "3 TiB")]
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert size(count) == text
