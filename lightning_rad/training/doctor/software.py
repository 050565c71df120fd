"""Versions of what is installed, and whether a compiler works."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from packaging.requirements import Requirement

from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.nt_xent import nt_xent
from lightning_rad.training.doctor.finding import Finding, graded

SHOWN: Final = ("torch", "pytorch-lightning", "webdataset", "timm", "triton")
"""Packages that a run's behaviour hangs on most, told even where nothing is asked of them."""

MALICIOUS: Final = {
    "pytorch-lightning": {"2.6.2", "2.6.3"},
    "lightning": {"2.6.2", "2.6.3"},
}
"""Uploads to PyPI that carried malware (GHSA-w37p-236h-pfx3); they steal credentials on import."""

FUSED: Final[Backend] = "fused"
REFERENCE: Final[Backend] = "reference"

_SOURCE: Final = """#include <Python.h>
#include <omp.h>
extern "C" int threads() { return omp_get_max_threads() + (Py_None != nullptr); }
"""


def installed() -> dict[str, str | None]:
    """Versions of the packages that are shown or that could harm; None where one is missing."""
    versions: dict[str, str | None] = {}
    for name in (*SHOWN, *MALICIOUS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def asked_for() -> list[str]:
    """What this package requires of others, as its metadata say."""
    return [line for line in metadata.requires("lightning-rad") or [] if "extra ==" not in line]


def versions(found: Mapping[str, str | None], required: Sequence[str]) -> list[Finding]:
    """One finding a package, and one for Python.

    found: package -> version. required: requirements as pip writes them.
    """
    wanted = {r.name.lower(): r.specifier for r in map(Requirement, required)}
    findings = [Finding("ok", "python", platform.python_version())]
    for name, version in found.items():
        if version is None:
            if name in wanted:
                remedy = f"pip install '{name}{wanted[name]}'"
                findings.append(Finding("failed", name, "not installed", remedy))
            continue
        if version in MALICIOUS.get(name, ()):
            remedy = "malware: take this machine's credentials for stolen, install 2.6.6 or later"
            findings.append(Finding("failed", name, version, remedy))
        elif name in wanted and not wanted[name].contains(version, prereleases=True):
            remedy = f"pip install '{name}{wanted[name]}'"
            findings.append(Finding("failed", name, version, remedy))
        else:
            findings.append(Finding("ok", name, version))
    return findings


def compiler(command: str | None = None) -> Finding:
    """Whether C++ with OpenMP and Python's headers compiles, as `torch.compile` does on a CPU.

    command: the compiler; by default what CXX says, else g++ or clang++.
    """
    what, remedy = (
        "C++ compiler",
        "torch.compile and Triton need one: apt-get install g++ python3-dev",
    )
    command = command or os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if command is None:
        return Finding("warning", what, "none found", remedy)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "try.cpp"
        source.write_text(_SOURCE)
        include = sysconfig.get_paths()["include"]
        made = ["-shared", "-fPIC", "-fopenmp", f"-I{include}", str(source)]
        try:
            done = subprocess.run(
                [*command.split(), *made, "-o", f"{folder}/try.so"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("warning", what, f"{command}: {error}", remedy)
    if done.returncode:
        told = next(
            (x for x in done.stderr.splitlines() if "error" in x), f"exit {done.returncode}"
        )
        return Finding("warning", what, f"{command}: {told.strip()}", remedy)
    return Finding("ok", what, f"{command} compiles with OpenMP and Python's headers")


def triton() -> Finding:
    """Whether Triton compiles for the GPU and computes what the definition says."""
    rows = torch.randn(64, 128, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    partner = torch.arange(64, device="cuda") // 2
    what, remedy = (
        "triton",
        "needs a C compiler and Python's headers: apt-get install gcc python3-dev",
    )
    try:
        fused, plain = (
            nt_xent(rows, rows, partner, temperature=0.2, backend=backend)
            for backend in (FUSED, REFERENCE)
        )
        off = float((fused - plain).abs() / plain.abs())
    except Exception as error:
        return Finding("failed", what, f"{type(error).__name__}: {error}".splitlines()[0], remedy)
    wrong = "the fused kernel is off: set backend: reference" if not off < 1e-3 else ""
    return graded(what, f"NT-Xent compiles and is off by {off:.1e}", failed=wrong)
