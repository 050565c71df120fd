"""What a benchmark ran on, as facts for its results."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "torch",
    "triton",
    "lightly",
    "pytorch-metric-learning",
    "open_clip_torch",
    "timm",
    "inf-cl",
    "siglip-kernel",
    "mirp",
    "flash-radiomics",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "pillow",
    "torchvision",
    "kornia",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
    "spdl-io",
    "imagecodecs",
)
MATRIX_FLAGS = ("avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def facts(device: str = "cpu") -> dict[str, str]:
    """Machine, versions, threads and commit."""
    told = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "flags": " ".join(flag for flag in MATRIX_FLAGS if flag in _cpuinfo("flags").split()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "packages": ", ".join(_versions()),
        "commit": _commit(),
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        told["device"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    return told


def slug(device: str = "cpu") -> str:
    """A short name of the machine for a file's name, such as 2-core-xeon."""
    if device == "cuda":
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    dull = r"\(r\)|\(tm\)|intel|amd|processor|cpu|@.*"
    name = re.sub(r"[^a-z0-9]+", "-", re.sub(dull, " ", _processor().lower())).strip("-")
    return f"{os.cpu_count()}-core-{name}"


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()


def _cpuinfo(entry: str) -> str:
    """The first value of an entry, or nothing where there is no such file."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(entry)), "")


def _versions() -> list[str]:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    """The commit, and whether files differ from it; unknown outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True)
        changed = subprocess.check_output([*git, "status", "--porcelain", "-uno"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.strip() + (" with changes" if changed.strip() else "")
