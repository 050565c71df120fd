"""Memory that one step of one way takes beyond its rows and their gradient, in a fresh process.

    python -m benchmarks.memory NT-Xent ours 4096 128

VmHWM, the high-water mark of what the process holds, is set back before the step (Linux), so
neither imports nor a parent's peak count. A step on small rows goes first, which leaves out what
libraries set up once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.problems import PROBLEMS
from benchmarks.ways import Way

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
LONG_ENOUGH = 1.0
"""Seconds of steps from which the best one is told."""


def measured(problem: str, way: str, *shape: int) -> dict[str, float]:
    """MiB and least seconds of a step, by a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.memory", problem, way, *map(str, shape)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    if done.returncode:
        raise RuntimeError(f"{problem}, {way}: {(done.stderr.splitlines() or ['no output'])[-1]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("way")
    parser.add_argument("shape", type=int, nargs="+")
    asked = parser.parse_args()
    small, way = (_way(asked.problem, asked.way, s) for s in (_small(asked.shape), asked.shape))
    small.step()
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = _kib("VmRSS")
    begun = time.perf_counter()
    _, gradients = way.step()
    seconds = [time.perf_counter() - begun]
    handed_back = sum(g.nbytes for g in gradients) / 1024
    mib = (_kib("VmHWM") - before - handed_back) / 1024
    while sum(seconds) < LONG_ENOUGH:
        begun = time.perf_counter()
        way.step()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": min(seconds), "mib": mib, "threads": torch.get_num_threads()}))


def _way(problem: str, name: str, shape: list[int]) -> Way:
    way = PROBLEMS[problem](*shape)[name]
    if isinstance(way, str):
        raise TypeError(way)
    return way


def _small(shape: list[int]) -> list[int]:
    return [*(min(64, size) for size in shape[:-1]), shape[-1]]


def _kib(entry: str) -> float:
    line = next(row for row in STATUS.read_text().splitlines() if row.startswith(entry))
    return float(line.split()[1])


if __name__ == "__main__":
    main()
