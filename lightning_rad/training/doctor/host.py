"""What this process is given of its machine: cores, memory, shared memory, open files."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightning_rad.training.doctor.finding import Finding, graded, size
from lightning_rad.training.shared_memory import shortage

FEW_FILES: Final = 1024
"""Descriptors under which a rank with 64 open shards, its sockets and libraries runs short."""

TOO_FEW_FILES: Final = 256
"""Descriptors under which 64 open shards a set leave too few for torch and its sockets."""

LITTLE_MEMORY: Final = 4 << 30
"""Bytes a rank: a process of torch with CUDA takes 2 to 3 GiB before its first image."""


@dataclass(frozen=True, slots=True)
class Cores:
    """affinity: cores that this process may run on; quota: how many of them at a time, or None."""

    affinity: int
    quota: float | None

    @property
    def usable(self) -> float:
        """How many can be busy at once."""
        return self.affinity if self.quota is None else min(self.affinity, self.quota)


def find_cores(root: Path = Path("/")) -> Cores:
    """Affinity of this process, quota of its control groups (v2, v1)."""
    quotas = []
    for folder in _groups(root, "cpu"):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append(int(words[0]) / int(words[1]))
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return Cores(len(os.sched_getaffinity(0)), min(quotas, default=None))


def cores(found: Cores, *, threads: int, ranks: int) -> Finding:
    """Cores against threads that decode and the one of each rank that trains."""
    limit = "" if found.quota is None else f", quota {found.quota:g}"
    wanted = ranks * (threads + 1)
    value = f"{found.affinity} cores{limit}, {ranks} rank(s) of {threads} threads and their own"
    remedy = ""
    if found.usable < wanted:
        most = max(int(found.usable / ranks) - 1, 0)
        remedy = (
            f"{wanted} are wanted: ask for them (--cpus-per-task={threads + 1}, docker --cpus), or "
            f"set data.loading.threads to {most}"
        )
    return graded("CPU", value, warning=remedy)


def find_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may take: those of the machine or of its tightest control group."""
    told = [x.split() for x in _read(root / "proc/meminfo").splitlines()]
    limits = [int(words[1]) << 10 for words in told if words[0] == "MemTotal:"]
    names = ("memory.max", "memory.limit_in_bytes")
    groups = [_read(folder / name) for folder in _groups(root, "memory") for name in names]
    limits += [int(limit) for limit in groups if limit.isdigit()]
    return min(limits, default=0)


def memory(limit: int, *, ranks: int) -> Finding:
    """The memory of a rank."""
    value = f"{size(limit)} for {ranks} rank(s)"
    if not limit:
        return Finding("warning", "memory", "not known", "is /proc mounted?")
    little = limit < ranks * LITTLE_MEMORY
    remedy = f"{size(LITTLE_MEMORY)} a rank is little: --mem of Slurm, --memory of docker"
    return graded("memory", value, warning=remedy if little else "")


def shared_memory(gpu_ranks: int, folder: Path = Path("/dev/shm")) -> Finding:
    """/dev/shm, which NCCL needs and threads do not."""
    if not folder.is_dir():
        value = "there is none"
    else:
        room = os.statvfs(folder)
        value = (
            f"{size(room.f_bavail * room.f_frsize)} free of {size(room.f_blocks * room.f_frsize)}"
        )
    return graded(str(folder), value, warning=shortage(gpu_ranks, folder) or "")


def open_files() -> Finding:
    """How many descriptors this process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    remedy = f"raise it: ulimit -n {most if most != 'unlimited' else 65536}"
    value = f"{soft} of at most {most}"
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return Finding("ok", "open files", value)
    return Finding("failed" if soft < TOO_FEW_FILES else "warning", "open files", value, remedy)


def _groups(root: Path, controller: str) -> list[Path]:
    """The folders of the control groups that hold this process, innermost first."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = mounted / path.lstrip("/")
        found += [x for x in (inner, *inner.parents) if x == mounted or mounted in x.parents]
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
