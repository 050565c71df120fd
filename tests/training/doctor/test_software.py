"""Versions against what is required, and compilers that do not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_rad.training.doctor.finding import worst
from lightning_rad.training.doctor.software import asked_for, compiler, installed, versions

REQUIRED = ["torch>=2.11", "pytorch-lightning>=2.6.6", "timm>=1.0"]
GOOD = {"torch": "2.12.0+cu130", "pytorch-lightning": "2.6.6", "timm": "1.0.3", "triton": None}


def test_what_is_installed_here_is_what_this_package_asks_for() -> None:
    required = asked_for()
    assert any(line.startswith("torch>=") for line in required)
    assert not any("pytest" in line for line in required)
    findings = versions(installed(), required)
    assert worst(findings) == "ok"
    assert {"python", "torch", "pytorch-lightning", "webdataset", "timm"} <= {
        f.what for f in findings
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"torch": "2.10.0"}, "pip install 'torch>=2.11'"),
        ({"timm": None}, "pip install 'timm>=1.0'"),
        ({"pytorch-lightning": "2.6.3"}, "malware"),
        ({"lightning": "2.6.2"}, "malware"),
    ],
)
def test_old_missing_and_malicious_packages_fail(changes: dict[str, str | None], says: str) -> None:
    [finding] = [f for f in versions(GOOD | changes, REQUIRED) if f.level == "failed"]
    assert says in finding.remedy


def test_a_newer_build_is_well_and_what_nothing_asks_for_may_be_missing() -> None:
    findings = versions(GOOD | {"lightning": "2.6.1"}, REQUIRED)
    assert worst(findings) == "ok"
    assert "triton" not in [f.what for f in findings]


@pytest.mark.parametrize(
    ("script", "level", "says"),
    [
        ("exit 0", "ok", "compiles with OpenMP"),
        (
            "echo 'try.cpp:1:10: fatal error: Python.h: No such file' >&2; exit 1",
            "warning",
            "Python.h",
        ),
        ("exit 3", "warning", "exit 3"),
    ],
)
def test_a_compiler_is_tried(tmp_path: Path, script: str, level: str, says: str) -> None:
    fake = tmp_path / "g++"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    finding = compiler(str(fake))
    assert finding.level == level
    assert says in finding.value


def test_no_compiler_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiler(str(tmp_path / "none")).level == "warning"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = compiler()
    assert finding.value == "none found"
    assert "apt-get install g++" in finding.remedy
