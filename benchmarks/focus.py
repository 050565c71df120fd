"""Views guided by gaze beside the same views without: objectives, kinds of gaze, three seeds.

    lightning-rad shards synthesize knees --patients 600 --size 96 --body knee
    lightning-rad shards synthesize others --patients 400 --size 96 --body knee --seed 7
    lightning-rad fit ... objective/gaze_predictor_small.yaml ... --data.manifest others
    lightning-rad shards annotate knees knees_seen --gaze CKPT
    python -m benchmarks.focus OUT --manifest knees_seen --body knee

The predictor has learned from other patients. All arms read the same shards: `random` draws windows
by the same law of zoom without looking at gaze, `recorded` and `predicted` keep nine tenths of that
map, `shuffled` of another patient's, which is the control; `crop`, `cutout` and `drop` are the
parts of `recorded`, one alone. ResNet-18 of half the channels. Each run is `lightning-rad fit` and
`validate` in processes of its own under OUT/<objective>_<arm>-<seed>; one that has its result is
not repeated, one that was cut off goes on, and the tables are of all that is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from benchmarks.runs import (
    ROOT,
    changed,
    interval,
    mean_and_range,
    narrow,
    pretrain,
    results,
    row,
    seconds_a_step,
    settings_of,
    stack,
)

OBJECTIVES = ("simclr_small", "moco_v2_small", "byol_small")
SOURCES = ("recorded", "predicted", "shuffled", "both")
PARTS = ("crop", "cutout", "drop")
BODIES = {"knee": ("knees", "_knee_small"), "chest": ("demo", "_small")}
"""The file of its data, and how those of its views end."""
GRADE = ("linear_accuracy", "linear_kappa", "linear_mae", "random_linear_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--body", default="knee", choices=list(BODIES))
    parser.add_argument("--objectives", nargs="*", default=OBJECTIVES, choices=OBJECTIVES)
    arms = ("random", *SOURCES, *PARTS)
    parser.add_argument("--arms", nargs="*", default=["random", *SOURCES[:3]], choices=arms)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64, help="global batch, a multiple of 8")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for objective in asked.objectives:
            for arm in asked.arms:
                run(asked, objective, arm, seed)
    text = tables(asked)
    (asked.out / "table.md").write_text(text)
    print(text)


def run(asked: argparse.Namespace, objective: str, arm: str, seed: int) -> None:
    """Pretrain and validate, whatever of it is still to be done."""
    name = f"{objective.removesuffix('_small')}_{arm}-{seed}"
    data, ending = BODIES[asked.body]
    view = f"two_view_{'random_zoom' if arm == 'random' else 'focus'}{ending}"
    layers = stack(objective, view, data)
    if arm != "random":
        layers.append(changed(asked.out / name, {"data": {"views": guided(view, arm)}}))
    settings = settings_of(asked.manifest, batch=asked.batch, steps=asked.steps, seed=seed)
    pretrain(asked.out / name, layers, settings | narrow())


def guided(view: str, arm: str) -> list[dict[str, Any]]:
    """The views of a file, with the arm's source of gaze, or with one part alone."""
    views = yaml.safe_load((ROOT / f"configs/view/{view}.yaml").read_text())["data"]["views"]
    for one in views:
        settings = one["init_args"]
        settings["saliency"]["source"] = arm if arm in SOURCES else "recorded"
        if arm in PARTS:
            # without a guided crop the same law of zoom, at random
            settings["crop"]["probability"] = 1.0 if arm == "crop" else 0.0
            settings |= {part: None for part in ("cutout", "drop") if part != arm}
    return list(views)


def tables(asked: argparse.Namespace) -> str:
    """Markdown: a row a run, then means over seeds."""
    found = results(asked.out)
    graded = any("grades" in r for by_seed in found.values() for r in by_seed.values())
    shown = GRADE if graded else ()
    lines = [
        f"{asked.body}, {asked.steps} steps of {asked.batch} images; AUROC macro over labels; 95 % "
        "intervals over patients",
        "",
        row("arm", "seed", "s/step", "linear AUROC", "random linear AUROC", *shown),
        "|---" * (5 + len(shown)) + "|",
    ]
    for name, by_seed in found.items():
        for seed, result in sorted(by_seed.items()):
            cells = [interval(result["macro"][k]) for k in ("linear_auroc", "random_linear_auroc")]
            cells += [interval(result["grades"][0][key]) for key in shown]
            lines.append(row(name, seed, seconds_a_step(asked.out / f"{name}-{seed}"), *cells))
    lines += ["", row("arm", "seeds", "linear AUROC, mean (range)", *shown[:3])]
    lines.append("|---" * (3 + len(shown[:3])) + "|")
    for name, by_seed in found.items():
        runs = list(by_seed.values())
        values = [[r["macro"]["linear_auroc"]["value"] for r in runs]]
        values += [[r["grades"][0][key]["value"] for r in runs] for key in shown[:3]]
        lines.append(row(name, len(runs), *map(mean_and_range, values)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
