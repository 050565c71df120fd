"""Every objective on the same shards, encoder, views and steps, measured by frozen probes.

    lightning-rad shards synthesize shards_600 --patients 600 --size 96
    python -m benchmarks.objectives OUT --manifest shards_600

Each run is `lightning-rad fit` and `validate` in a process of its own under OUT/<objective>-<seed>.
A run that has its result is not repeated, one that was cut off goes on, so several of these
commands may share OUT with different --objectives or --seeds; the table is of all that is there.
A batch takes a third of the units at most, and MICLe's units are patients.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import torch

from benchmarks.runs import (
    ROOT,
    interval,
    mean_and_range,
    pretrain,
    results,
    row,
    seconds_a_step,
    settings_of,
    stack,
)

ELSEWHERE = {
    "refers_small",
    "image_report_clip_small",
    "image_report_siglip_small",
    "knowledge_contrast_small",
    "gaze_predictor_small",
}
"""These are compared by benchmarks/reports.py, knowledge.py and focus.py."""
SMALL = sorted(
    {file.stem for file in (ROOT / "configs/objective").glob("*_small.yaml")} - ELSEWHERE
)
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
    settings = settings_of(asked.manifest, batch=asked.batch, steps=asked.steps, seed=seed)
    pretrain(asked.out / f"{objective}-{seed}", stack(objective, asked.view), settings)


def table(asked: argparse.Namespace) -> str:
    """Markdown: one row a run, then means over seeds where there are several."""
    found = results(asked.out)
    lines = [
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}; {asked.steps} steps of {asked.batch} units, views "
        f"{asked.view}; macro over findings, 95 % intervals over patients; gain: paired difference "
        "to the random-init encoder",
        "",
        "| objective | seed | s/step | kNN AUROC | linear AUROC | random linear | gain, linear |",
        "|---|---|---|---|---|---|---|",
    ]
    for objective, by_seed in found.items():
        for seed, result in sorted(by_seed.items()):
            macro = result["macro"]
            shown = ("knn_auroc", "linear_auroc", "random_linear_auroc", "gain_linear_auroc")
            pace = seconds_a_step(asked.out / f"{objective}-{seed}")
            lines.append(row(objective, seed, pace, *(interval(macro[name]) for name in shown)))
    several = {name: by_seed for name, by_seed in found.items() if len(by_seed) > 1}
    if several:
        lines += [
            "",
            "| objective | seeds | kNN AUROC, mean (range) | linear AUROC, mean (range) |",
        ]
        lines.append("|---|---|---|---|")
    for objective, by_seed in several.items():
        values = [[r["macro"][metric]["value"] for r in by_seed.values()] for metric in METRICS]
        lines.append(row(objective, len(by_seed), *map(mean_and_range, values)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
