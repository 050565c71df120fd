"""GPUs, their driver and NCCL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from lightning_rad.training.doctor.finding import Finding, graded, size

LEAST_DRIVER: Final = {11: 450, 12: 525, 13: 580}
"""CUDA release family -> least driver on Linux (docs.nvidia.com/deploy/cuda-compatibility)."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gpus:
    """What there is: GPUs that torch can use, the kernel's driver, and what torch is built for.

    driver: None without one. cuda: None where torch is built without. architectures: of the
    machine code in torch ("sm_90"). nccl: its version, None where torch has none.
    """

    seen: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    architectures: tuple[str, ...] = ()
    nccl: tuple[int, ...] | None = None


def find_gpus(proc: Path = Path("/proc")) -> Gpus:
    """Asks torch and /proc; makes no CUDA context where there is no GPU."""
    try:
        told = (proc / "driver/nvidia/version").read_text()
    except OSError:
        told = ""
    driver = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", told)
    seen = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            seen.append(Gpu(about.name, about.total_memory, (about.major, about.minor)))
    return Gpus(
        seen=tuple(seen),
        driver=driver and driver[1],
        cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()) if seen else (),
        nccl=tuple(torch.cuda.nccl.version()) if torch.version.cuda else None,  # type: ignore[no-untyped-call]
    )


def gpus(found: Gpus, devices: int | None) -> list[Finding]:
    """What is seen against what is there and what is asked for.

    devices: ranks of this machine that are to have a GPU each; None is as many as there are.
    """
    findings = [_driver(found)]
    for number, gpu in enumerate(found.seen):
        value = f"{gpu.name}, {size(gpu.memory)}, sm_{gpu.capability[0]}{gpu.capability[1]}"
        findings.append(graded(f"GPU {number}", value, failed=_unfit(gpu, found.architectures)))
    if not found.seen:
        remedy = "training runs on the CPU; on a login node this is as it should be"
        findings.append(Finding("warning", "GPUs", "none", remedy))
    elif devices is not None and devices > len(found.seen):
        remedy = "lower --devices, or ask Slurm for more with --gpus-per-node (or --gres=gpu:N)"
        value = f"{len(found.seen)} for {devices} ranks"
        findings.append(Finding("failed", "GPUs", value, remedy))
    if len({gpu.name for gpu in found.seen}) > 1:
        remedy = "all ranks wait for the slowest: choose alike ones by CUDA_VISIBLE_DEVICES"
        findings.append(Finding("warning", "GPUs", "of several kinds", remedy))
    if found.seen:
        findings.append(_nccl(found))
    return findings


def _driver(found: Gpus) -> Finding:
    what = "driver"
    value = f"{found.driver or 'none'}; torch is built for CUDA {found.cuda or '(none)'}"
    if found.driver is None:
        return Finding("ok", what, value)
    if found.cuda is None:
        return Finding("failed", what, value, "install torch with CUDA: see pytorch.org")
    least = LEAST_DRIVER.get(int(found.cuda.split(".")[0]))
    if least is not None and int(found.driver.split(".")[0]) < least:
        remedy = f"needs driver {least} or later, or a torch for an older CUDA"
        return Finding("failed", what, value, remedy)
    if not found.seen:
        remedy = (
            "torch sees no GPU: is CUDA_VISIBLE_DEVICES empty, --gpus missing (srun, docker run), "
            "or the device node not to be opened?"
        )
        return Finding("failed", what, value, remedy)
    return Finding("ok", what, value)


def _unfit(gpu: Gpu, architectures: tuple[str, ...]) -> str:
    """The remedy where torch has no machine code for a GPU: of its generation, and no newer."""
    major, minor = gpu.capability
    codes = [re.match(r"sm_(\d+)(\d)", name) for name in architectures]
    fit = [int(c[1]) == major and int(c[2]) <= minor for c in codes if c]
    if not architectures or any(fit) or any(a.startswith("compute_") for a in architectures):
        return ""
    return f"torch has code for {', '.join(architectures)} only: install another build"


def _nccl(found: Gpus) -> Finding:
    if found.nccl is None:
        return Finding("failed", "NCCL", "none in this torch", "install torch with CUDA")
    return Finding("ok", "NCCL", ".".join(map(str, found.nccl)))
