"""Objectives that read reports beside SimCLR: one encoder, one budget of images, three seeds.

    sed 's/patients: 400/patients: 800/; s/size: 128/size: 96/' shards/synthetic.yaml > 800.yaml
    lightning-rad shards build 800.yaml shards_800
    lightning-rad reports tokenizer shards_800 --out tokenizer.json
    python -m benchmarks.reports OUT --manifest shards_800 --tokenizer tokenizer.json

The encoder is ResNet-18 on 64 pixels, and every arm shows it as many images (`--images`), so that
one view a study trains for more steps than three. Arms differ by what stands in `ARMS` alone. Each
run is `lightning-rad fit` and `validate` in processes of its own under OUT/<arm>-<seed>; one that
has its result is not repeated, one that was cut off goes on, and the tables are of all that is
there. `--text FOLDER` is a pretrained encoder for the arms `..._pretrained`. Findings in generated
reports are counted where shards have the labels of the synthetic ones.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runs import (
    changed,
    interval,
    mean_and_range,
    pretrain,
    results,
    row,
    seconds_a_step,
    settings_of,
    stack,
)
from lightning_rad.modalities.mentions import SYNTHETIC_WORDS

ENCODER = {
    "class_path": "lightning_rad.nn.encoders.Encoder",
    "init_args": {"name": "resnet18", "image_size": None, "channels_last": True, "kwargs": None},
}
PRETRAINED = "lightning_rad.nn.text_pretrained.PretrainedText"


@dataclass(frozen=True)
class Arm:
    """What is compared: an objective, its views of a unit, and what else is changed."""

    objective: str
    view: str
    views: int
    settings: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None  # the part that a pretrained text encoder replaces


CLIP = ("image_report_clip_small", "one_view_reports_small", 1)
REFERS = ("refers_small", "three_view_reports_small", 3)
ARMS = {
    "simclr": Arm("simclr_small", "two_view_small", 2),
    "clip": Arm(*CLIP),
    "siglip": Arm("image_report_siglip_small", "one_view_reports_small", 1),
    "refers": Arm(*REFERS),
    "clip_mirrored": Arm(*CLIP, {"data.shuffle.flip": 0.5}),
    "refers_unmirrored": Arm(*REFERS, {"data.shuffle.flip": 0.0}),
    "clip_pretrained": Arm(*CLIP, pretrained="text.encoder"),
    "refers_pretrained": Arm(*REFERS, pretrained="text"),
}
MAIN = ["simclr", "clip", "siglip", "refers"]
RECALLS = ("recall_i2t@1", "recall_i2t@5", "recall_i2t@10", "recall_t2i@10", "recall_chance@10")
WRITTEN = ("perplexity", "finding_f1", "finding_f1_chance", "true_f1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--arms", nargs="*", default=MAIN, choices=list(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=48_000, help="shown to the encoder in a run")
    parser.add_argument("--batch", type=int, default=64, help="global batch, a multiple of 8")
    parser.add_argument("--text", help="folder of a pretrained text encoder")
    parser.add_argument("--words", action="store_true", help="count findings in generated reports")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for arm in asked.arms:
            run(asked, arm, seed)
    text = tables(asked)
    (asked.out / "table.md").write_text(text)
    print(text)


def run(asked: argparse.Namespace, name: str, seed: int) -> None:
    """Pretrain and validate, whatever of it is still to be done."""
    arm, folder = ARMS[name], asked.out / f"{name}-{seed}"
    changes: dict[str, Any] = {"model": {"init_args": {"encoder": ENCODER}}}
    if asked.words:
        changes["report_probe"] = {"words": {k: list(v) for k, v in SYNTHETIC_WORDS.items()}}
    if arm.pretrained is not None:
        part: dict[str, Any] = {"class_path": PRETRAINED, "init_args": {"folder": asked.text}}
        for key in reversed(arm.pretrained.split(".")):
            part = {key: part}
        changes["model"]["init_args"] |= part
    steps = math.ceil(asked.images / (arm.views * asked.batch))
    settings = settings_of(asked.manifest, batch=asked.batch, steps=steps, seed=seed)
    if arm.objective != "simclr_small":
        settings["model.init_args.reports.tokenizer"] = asked.tokenizer
    pretrain(
        folder, [*stack(arm.objective, arm.view), changed(folder, changes)], settings | arm.settings
    )


def tables(asked: argparse.Namespace) -> str:
    """Markdown: frozen probes and what is known of reports, a row a run; then means over seeds."""
    lines = [
        f"{asked.images} images in batches of {asked.batch} units; macro over findings, 95 % "
        "intervals over patients; gain: paired difference to the random-init encoder",
        "",
        "| arm | seed | s/step | kNN AUROC | linear AUROC | random linear | gain, linear |",
        "|---|---|---|---|---|---|---|",
    ]
    probes = results(asked.out)
    for name, by_seed in probes.items():
        for seed, result in sorted(by_seed.items()):
            macro = result["macro"]
            shown = ("knn_auroc", "linear_auroc", "random_linear_auroc", "gain_linear_auroc")
            pace = seconds_a_step(asked.out / f"{name}-{seed}")
            lines.append(row(name, seed, pace, *(interval(macro[key]) for key in shown)))
    lines += ["", row("arm", "seeds", "linear AUROC, mean (range)"), "|---|---|---|"]
    for name, by_seed in probes.items():
        values = [result["macro"]["linear_auroc"]["value"] for result in by_seed.values()]
        lines.append(row(name, len(values), mean_and_range(values)))
    for columns in (RECALLS, WRITTEN):
        lines += ["", row("arm", "seed", "n", *columns), "|---" * (3 + len(columns)) + "|"]
        for path in sorted(asked.out.glob("*/reports_val.json")):
            measures = json.loads(path.read_text())["measures"]
            if columns[0] in measures:
                name, _, seed = path.parent.name.rpartition("-")
                cells = [interval(measures[key]) if key in measures else "" for key in columns]
                lines.append(row(name, seed, measures[columns[0]]["n"], *cells))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
