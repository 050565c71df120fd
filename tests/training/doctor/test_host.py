"""Cores, memory, shared memory and open files, from planted facts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_rad.training.doctor.host import (
    Cores,
    cores,
    find_cores,
    find_memory,
    memory,
    open_files,
    shared_memory,
)

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


V2 = {
    "proc/self/cgroup": "0::/slurm/job_7/step_0",
    "sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000",
    "sys/fs/cgroup/slurm/job_7/cpu.max": "250000 100000",
    "sys/fs/cgroup/slurm/job_7/memory.max": str(3 * GIB),
    "sys/fs/cgroup/slurm/memory.max": "max",
    "proc/meminfo": "MemTotal:       67108864 kB\nMemFree: 1 kB",
}
V1 = {
    "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/docker/abc",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": str(2 * GIB),
    "proc/meminfo": "MemTotal:       67108864 kB",
}


@pytest.mark.parametrize(("files", "quota", "limit"), [(V2, 2.5, 3 * GIB), (V1, 1.5, 2 * GIB)])
def test_the_tightest_control_group_above_counts(
    tmp_path: Path, files: dict[str, str], quota: float, limit: int
) -> None:
    root = write(tmp_path, files)
    assert find_cores(root) == Cores(len(os.sched_getaffinity(0)), quota)
    assert find_memory(root) == limit


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal:       1048576 kB"})
    assert find_cores(root).quota is None
    assert find_memory(root) == GIB
    assert find_memory(tmp_path / "nowhere") == 0


def test_affinity_is_what_counts_and_not_the_cores_of_the_machine() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lightning_rad.training.doctor.host import find_cores; print(find_cores().affinity)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("found", "threads", "ranks", "level", "remedy"),
    [
        (Cores(16, None), 3, 4, "ok", ""),
        (Cores(16, None), 4, 4, "warning", "data.loading.threads to 3"),
        (Cores(64, 8.0), 3, 4, "warning", "data.loading.threads to 1"),
        (Cores(2, None), 4, 4, "warning", "data.loading.threads to 0"),
    ],
)
def test_threads_of_all_ranks_need_cores(
    found: Cores, threads: int, ranks: int, level: str, remedy: str
) -> None:
    finding = cores(found, threads=threads, ranks=ranks)
    assert finding.level == level
    assert remedy in finding.remedy


def test_little_memory_a_rank_is_told() -> None:
    assert memory(32 * GIB, ranks=8).level == "ok"
    assert memory(32 * GIB - 1, ranks=8).level == "warning"
    assert memory(0, ranks=1).level == "warning"


def test_shared_memory_matters_to_several_gpus_only(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert shared_memory(1, gone).level == "ok"
    assert shared_memory(2, gone).level == "warning"
    assert shared_memory(2, gone).value == "there is none"


@pytest.mark.parametrize(("limit", "level"), [(64, "failed"), (512, "warning"), (1024, "ok")])
def test_few_descriptors_are_told(limit: int, level: str) -> None:
    program = (
        "import dataclasses, json, resource\n"
        "from lightning_rad.training.doctor.host import open_files\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, hard))\n"
        "print(json.dumps(dataclasses.asdict(open_files())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    finding = json.loads(done.stdout)
    assert finding["level"] == level
    assert finding["value"].startswith(f"{limit} of at most")
    assert ("ulimit -n" in finding["remedy"]) == (level != "ok")


def test_this_process_has_some() -> None:
    assert open_files().what == "open files"
