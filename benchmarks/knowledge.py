"""The knowledge contrast beside its classifier alone, and beside its loop cut: three seeds.

    lightning-rad shards synthesize shards_600 --patients 600 --size 96
    python -m benchmarks.knowledge OUT --manifest shards_600

Arms: `loop`, regions by heat on the weights of each step, annotated boxes where there are any, at
the published weights of the two terms; `gentle`, the same with a contrast of weight 0.03;
`classifier`, the focal loss alone; `annotated`, a fixed region where there is no box; `central`, a
fixed region for all. `--labelled` hides the labels, and `--boxed` the boxes, of the other training
patients. ResNet-18 of half the channels at stride 16 on 96 pixels, so that a map has 6 x 6 patches.
Each run is `lightning-rad fit` and `validate` in processes of its own under
OUT/<arm>_<labelled>-<seed>; one that has its result is not repeated, one that was cut off goes on,
and the tables are of all that is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.runs import (
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

ARMS: dict[str, dict[str, object]] = {
    "loop": {},
    "gentle": {
        "model.init_args.contrast.weight": 0.03,
        "model.init_args.findings.weight": 0.97,
    },
    "classifier": {
        "model.init_args.contrast.weight": 0.0,
        "model.init_args.findings.weight": 1.0,
    },
    "annotated": {"model.init_args.radiomic.feedback.regions": "annotated"},
    "central": {"model.init_args.radiomic.feedback.regions": "central"},
}
THRESHOLDS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--labelled", nargs="*", type=float, default=[0.1, 1.0])
    parser.add_argument("--boxed", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64, help="global batch, a multiple of 8")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for labelled in asked.labelled:
            for arm in asked.arms:
                run(asked, arm, labelled, seed)
    text = tables(asked)
    (asked.out / "table.md").write_text(text)
    print(text)


def run(asked: argparse.Namespace, arm: str, labelled: float, seed: int) -> None:
    """Pretrain and validate, whatever of it is still to be done."""
    folder = asked.out / f"{arm}_{labelled:g}-{seed}"
    reading = {"labelled": labelled, "boxed": asked.boxed}
    file = changed(folder, {"model": {"init_args": {"findings": {"reading": reading}}}})
    settings = settings_of(asked.manifest, batch=asked.batch, steps=asked.steps, seed=seed)
    layers = [*stack("knowledge_contrast_small", "one_view_findings_small"), file]
    pretrain(folder, layers, settings | narrow(output_stride=16) | ARMS[arm])


def tables(asked: argparse.Namespace) -> str:
    """Markdown: a row a run, then means over seeds, and per finding the mean over seeds."""
    probes, found = results(asked.out), results(asked.out, "findings_val.json")
    lines = [
        f"{asked.steps} steps of {asked.batch} images; AUROC of the classifier itself and of a "
        "linear probe, macro over findings; share of annotated boxes found at an intersection "
        "over union, macro over findings with boxes; 95 % intervals over patients",
        "",
        row("arm", "seed", "s/step", "AUROC", "linear AUROC", "boxes", "found@0.1", "found@0.5"),
        "|---" * 8 + "|",
    ]
    for name, by_seed in found.items():
        for seed, result in sorted(by_seed.items()):
            macro, probe = result["macro"], probes[name][seed]["macro"]
            lines.append(
                row(
                    name,
                    seed,
                    seconds_a_step(asked.out / f"{name}-{seed}"),
                    interval(macro["auroc"]),
                    interval(probe["linear_auroc"]),
                    macro["boxes"],
                    *(interval(macro["localised"][t]) for t in ("0.1", "0.5")),
                )
            )
    lines += ["", row("arm", "seeds", "AUROC, mean (range)", *(f"@{t}" for t in THRESHOLDS))]
    lines.append("|---" * (3 + len(THRESHOLDS)) + "|")
    fixed: dict[str, list[float]] = {t: [] for t in THRESHOLDS}
    for name, by_seed in found.items():
        runs = [result["macro"] for result in by_seed.values()]
        values = [[r["localised"][t]["value"] for r in runs] for t in THRESHOLDS]
        auroc = mean_and_range([r["auroc"]["value"] for r in runs])
        lines.append(row(name, len(runs), auroc, *map(mean_and_range, values)))
        for t in THRESHOLDS:
            fixed[t] += [r["localised_fixed"][t]["value"] for r in runs]
    if found:
        lines.append(row("a fixed box", "", "", *(mean_and_range(fixed[t]) for t in THRESHOLDS)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
