"""Every objective on the same shards, encoder, views and steps, measured by frozen probes.

    lightning-rad shards synthesize shards_600 --patients 600 --size 96
    python benchmarks/objectives.py OUT --manifest shards_600

Each run is `lightning-rad fit` and `validate` in a process of its own under OUT/<objective>-<seed>.
A run that has its result is not repeated, one that was cut off goes on, so several of these
commands may share OUT with different --objectives or --seeds; the table is of all that is there.
A batch takes a third of the units at most, and MICLe's units are patients.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SMALL = sorted(file.stem for file in (ROOT / "configs/objective").glob("*_small.yaml"))
METRICS = {"knn_auroc": "kNN AUROC", "linear_auroc": "linear AUROC"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--objectives", nargs="*", default=SMALL, choices=SMALL)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--view", default="two_view_small")
    parser.add_argument("--batch", type=int, default=64, help="global batch, a multiple of 8")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for objective in asked.objectives:
            run(asked, objective, seed)
    text = table(asked)
    (asked.out / "table.md").write_text(text)
    print(text)


def run(asked: argparse.Namespace, objective: str, seed: int) -> None:
    """Pretrain and validate, whatever of it is still to be done."""
    folder = asked.out / f"{objective}-{seed}"
    if (folder / "probe_val.json").is_file():
        return
    names = ("base", f"objective/{objective}", f"view/{asked.view}", "data/demo", "scale/cpu")
    stack = [word for name in names for word in ("-c", str(ROOT / "configs" / f"{name}.yaml"))]
    seeds = {"seed_everything": seed, "model.init_args.seed": seed, "data.shuffle.seed": seed}
    settings = {"run": folder, "data.manifest": asked.manifest, "trainer.max_steps": asked.steps}
    settings |= {"data.global_batch": asked.batch, "trainer.log_every_n_steps": 1}
    settings |= seeds | {"trainer.max_epochs": -1, "trainer.check_val_every_n_epoch": 1000}
    stack += [f"--{key}={value}" for key, value in settings.items()]
    begun = any((folder / "checkpoints").glob("step-*"))
    quiet = ["--trainer.enable_progress_bar=false"]
    goes_on = ["--ckpt_path=last"] if begun else []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a") as output:
        for command in (
            ["fit", *stack, *quiet, *goes_on],
            ["validate", *stack, *quiet, "--ckpt_path=last"],
        ):
            whole = [sys.executable, "-m", "lightning_rad", *command]
            done = subprocess.run(whole, stdout=output, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                *_, reason = ["no output", *Path(output.name).read_text().splitlines()]
                sys.exit(f"{objective}, seed {seed}: {command[0]} failed: {reason}; {output.name}")
    print(f"{objective}, seed {seed}: done", flush=True)


def table(asked: argparse.Namespace) -> str:
    """Markdown: one row a run, then means over seeds where there are several."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(asked.out.glob("*/probe_val.json")):
        objective, _, seed = file.parent.name.rpartition("-")
        results.setdefault(objective, {})[int(seed)] = json.loads(file.read_text())
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}; {asked.steps} steps of {asked.batch} units, views "
        f"{asked.view}; macro over findings, 95 % intervals over patients; gain: paired difference "
        "to the random-init encoder",
        "",
        "| objective | seed | s/step | kNN AUROC | linear AUROC | random linear | gain, linear |",
        "|---|---|---|---|---|---|---|",
    ]
    for objective, by_seed in results.items():
        for seed, result in sorted(by_seed.items()):
            macro = result["macro"]
            shown = ("knn_auroc", "linear_auroc", "random_linear_auroc", "gain_linear_auroc")
            pace = seconds_a_step(asked.out / f"{objective}-{seed}")
            cells = [objective, str(seed), pace, *(interval(macro[name]) for name in shown)]
            lines.append(f"| {' | '.join(cells)} |")
    several = {name: by_seed for name, by_seed in results.items() if len(by_seed) > 1}
    if several:
        lines += [
            "",
            "| objective | seeds | kNN AUROC, mean (range) | linear AUROC, mean (range) |",
        ]
        lines.append("|---|---|---|---|")
    for objective, by_seed in several.items():
        cells = [objective, str(len(by_seed))]
        for metric in METRICS:
            values = [result["macro"][metric]["value"] for result in by_seed.values()]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}, {max(values):.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}, {estimate['high']:.3f})"


def seconds_a_step(folder: Path) -> str:
    """Median over the logged steps of the run."""
    if not (folder / "metrics.csv").is_file():
        return ""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    name = next((key for key in (rows or [{}])[0] if key.endswith("step_s")), None)
    values = [float(row[name]) for row in rows if name and row.get(name)]
    return f"{statistics.median(values):.2f}" if values else ""


if __name__ == "__main__":
    main()
