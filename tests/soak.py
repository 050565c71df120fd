"""Random deaths at random moments of a run of two ranks, and what is left at the end.

    python -m tests.soak FOLDER --kills 200 --steps 8000

Trains undisturbed, trains again with a death every few seconds, prints what happened as JSON and
ends with 1 unless order, pixels, weights and optimiser state are equal bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lightning_rad import sharding
from tests.runs import Run, end, start, train

KINDS = ("SIGKILL to both ranks", "SIGKILL to one rank", "SIGTERM to one rank")
SECTIONS = ("state_dict", "optimizer_states", "lr_schedulers", "RadiographData")
PATIENCE = 5.0  # seconds that the other rank has before it is ended as srun or torchrun would


def soak(run: Run, kills: int, seed: int = 0) -> dict[str, Any]:
    """Disturb a run until it has had its deaths, let it end, and tell of it."""
    draw = random.Random(seed)
    deaths: Counter[str] = Counter()
    alone = 0
    while sum(deaths.values()) < kills:
        processes = start(run)
        _wait(run, processes, draw)
        if all(process.exitcode == 0 for process in processes):
            break
        kind = draw.choice(KINDS)
        deaths[kind] += 1
        alone += _strike(processes, kind, draw.randrange(run.ranks))
        if not (count := sum(deaths.values())) % 10:
            sys.stderr.write(f"{count} deaths\n")
    train(run, timeout=1200)
    return {
        "deaths": dict(deaths),
        "steps": run.steps,
        "steps done again": _again(run),
        f"ranks ended from outside, {PATIENCE:.0f} s after": alone,
    }


def _wait(run: Run, processes: list[BaseProcess], draw: random.Random) -> None:
    """Until a moment of the start of a run, or of the first second of its training."""
    if draw.random() < 1 / 3:
        time.sleep(draw.uniform(0.1, 4.0))
        return
    rows = run.folder / "rows-0.txt"
    before = _size(rows)
    while _size(rows) == before and any(process.is_alive() for process in processes):
        time.sleep(0.02)
    time.sleep(draw.uniform(0.0, 1.0))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _strike(processes: list[BaseProcess], kind: str, victim: int) -> int:
    """Strike, and wait until all are gone: how many a launcher had to end."""
    blow = signal.SIGTERM if kind.startswith("SIGTERM") else signal.SIGKILL
    struck = processes if kind.endswith("both ranks") else [processes[victim]]
    for process in struck:
        if process.is_alive() and process.pid:
            os.kill(process.pid, blow)
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    left = sum(process.is_alive() for process in processes)
    end(processes)
    return left


def _again(run: Run) -> int:
    """Optimiser steps that a rank took more than once."""
    lines = (run.folder / "rows-0.txt").read_text().splitlines()
    steps = Counter(line.split(" ", 1)[0] for line in lines)
    return sum(count - 1 for count in steps.values())


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two checkpoints are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def compared(rough: Run, calm: Run) -> dict[str, Any]:
    """Where two runs that have ended are not equal."""
    mine, theirs = rough.checkpoint, calm.checkpoint
    return {
        "differences": [d for s in SECTIONS for d in differences(mine[s], theirs[s], s)],
        "order and pixels equal": rough.log == calm.log,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objective", default="moco")
    given = parser.parse_args()
    shards = given.folder / "shards"
    sharding.synthesize(shards, patients=60, size=32, seed=1, images_per_shard=20, overwrite=True)
    calm = Run(
        shards,
        given.folder / "undisturbed",
        given.steps,
        ranks=2,
        save_every=10,
        in_background=True,
        objective=given.objective,
    )
    train(calm, timeout=1200)
    rough = replace(calm, folder=given.folder / "disturbed")
    told = soak(rough, given.kills, given.seed) | compared(rough, calm)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    whole = sum(told["deaths"].values()) == given.kills and told["order and pixels equal"]
    sys.exit(0 if whole and not told["differences"] else 1)


if __name__ == "__main__":
    main()
