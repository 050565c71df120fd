"""A contact sheet of evidence: what is known of images of the train split, and what is made of it.

    python -m benchmarks.evidence_sheet OUT.png --manifest SHARDS --checkpoint RUN/checkpoints

Columns, where there is something of them: annotated boxes; fixations (blue) over their map; the
predicted map; of a knowledge contrast the class activation map of the finding that drives an
image's region, its box (pink) and the annotated ones of that finding (green); focus views with the
fixations they show, framed in red where a search was exhausted. All is as training gets it, at the
recipe's size or at `--size`: with a checkpoint the one that the network has learned at.
"""

import argparse
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image, ImageDraw, ImageFont
from pytorch_lightning import Trainer

from benchmarks.runs import ROOT
from lightning_rad import checkpoints
from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.evidence import Evidence
from lightning_rad.data.focus import EXHAUSTED
from lightning_rad.data.reader import Reader
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.modalities.heat import box_of_heat
from lightning_rad.nn.pretrained import CONFIG_ENTRY
from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
from lightning_rad.objectives.knowledge_regions import driving, findings_of

SIDE, LINE, FONT = 256, 22, ImageFont.load_default(16)  # of a tile and a line of text, in pixels
GREEN, PINK, BLUE, WARM, RED = "#5af05a", "#ff5adc", "#46e1ff", "#ff8200", "#ff3c3c"
Row = dict[str, tuple[Image.Image, str]]  # picture and caption by the title of their column


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--checkpoint", type=Path)
    view = ROOT / "configs/view/two_view_focus_small.yaml"
    parser.add_argument("--view", type=Path, default=view)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rows", type=int, default=8)
    asked = parser.parse_args()
    try:
        sheet(rows_of(asked)).save(asked.out)
    except (ValueError, OSError, ArgumentError) as error:
        sys.exit(f"evidence_sheet: {' '.join(str(error).split())}")


def rows_of(asked: argparse.Namespace) -> list[Row]:
    """Of different images; those with boxes come first."""
    held, model = load_manifest(asked.manifest), None
    views = yaml.safe_load(asked.view.read_text())["data"]
    views = [*views["views"], views["evaluation"]["view"]]
    for view in views:
        view["init_args"]["size"] = asked.size or view["init_args"]["size"]
    views = views if {"gaze", "saliency"} & {*held.fields} else views[-1:]
    given = {"manifest": asked.manifest, "views": views, "evaluation": {"view": views[-1]}}
    data = built(RadiographData, given | {"global_batch": 1, "shuffle": {"groups": 1}})
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    if "gaze" in held.fields:
        data.read_gaze(GazeReading(Saliency("recorded")))
    if asked.checkpoint is not None:
        model = knowledge(asked.checkpoint)
        data.read_findings(model.findings.reading)
    source = ShardSource(load_index(held, held.of_split("train")))
    seen = {int(b.image[-1, 0]): b for b in islice(data.train_dataloader(), 25 * asked.rows)}
    boxes = {image: source.entry(image).get("boxes") or [] for image in seen}
    first = sorted(seen, key=lambda image: not boxes[image])[: asked.rows]
    return [row(data, Reader([source]), seen[image], boxes[image], model) for image in first]


def built(kind: type, given: dict[str, Any]) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "it")
    return parser.instantiate(parser.parse_object({"it": given})).it


def knowledge(run: Path) -> KnowledgeContrast:
    folder = checkpoints.resolve(run)
    saved = checkpoints.read(folder, place=lambda _, size, kind: torch.empty(size, dtype=kind))
    if saved.get("objective") != KnowledgeContrast.__name__:
        raise ValueError(f"{run} is of {saved.get('objective')}, not of KnowledgeContrast")
    descent = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    given = saved[CONFIG_ENTRY]["init_args"] | {"optimizer": descent, "schedule": None}
    model = built(KnowledgeContrast, given)
    model.load_state_dict(saved["state_dict"])
    return model.eval()


def row(data: Any, reader: Reader, batch: Any, boxes: list[Any], model: Any) -> Row:
    image, zero, whole = int(batch.image[-1, 0]), np.zeros(1, np.int64), batch.pixels[-1]
    words = tuple(dict.fromkeys(box["label"] for box in boxes))
    reading, gaze = FindingReading(words or ("",)), GazeReading(Saliency("predicted"))
    rows = Evidence.of(reader, reading, gaze, hides=False).rows(1, 1)
    size = np.array([reader.pixels(image).shape])
    shown = data.views[-1].draw(size, seed=0, epochs=zero, units=zero, view=0)
    rows.put(np.array([[image]]), [shown], 0)
    known, predicted = rows.tensors()
    tiles: Row = {}
    if boxes:
        frames = [(box, GREEN) for box in known.boxes[0, 0]]
        tiles["annotated boxes"] = drawn(whole, boxes=frames), ", ".join(words)
    points = () if batch.gaze is None else batch.gaze.points[:, 0]
    dots = [view[view.isfinite().all(1)] for view in points] or [()] * len(data.views)
    if batch.gaze is not None and batch.gaze.map[-1, 0].any():
        tiles["recorded gaze"] = drawn(whole, batch.gaze.map[-1, 0], dots=dots[-1]), ""
    if predicted.map.any():
        tiles["predicted gaze"] = drawn(whole, predicted.map[0, 0]), ""
    if model is not None:
        tiles["activation and its box"] = activation(data, batch, model)
    for view in range(len(data.views) - 1):
        bits = int(batch.focus[view, 0])
        told = [name.replace("_", " ") for name, bit in EXHAUSTED.items() if bits & bit]
        told += [f"{len(dots[view])} of {len(dots[-1])} fixations"] if len(dots[-1]) else []
        picture = drawn(batch.pixels[view], dots=dots[view])
        tiles[f"focus view {view + 1}"] = picture, ", ".join(told)
    return tiles


@torch.no_grad()
def activation(data: Any, batch: Any, model: KnowledgeContrast) -> tuple[Image.Image, str]:
    shown, last = data.on_after_batch_transfer(batch, 0), slice(-1, None)
    one = replace(shown, views=shown.views[last], findings=shown.findings.at(last))
    found, known = model.embed(one), findings_of(one)
    if "heat" not in found:
        raise ValueError("the checkpoint's objective takes no region from heat at its first step")
    which, shift = int(driving(found["logits"][0], known.labels)), model.patch_shift
    threshold, heat = model.feedback.threshold, found["heat"][0]
    box, hot = box_of_heat(heat, data.views[-1].shape, threshold=threshold, shift=shift)
    boxes = [(each, GREEN) for each in known.boxes[0][known.finding[0] == which]]
    picture = drawn(batch.pixels[-1], heat[0], [*boxes, (box[0], PINK)], shift=shift)
    sure = float(found["logits"][0, 0, which].sigmoid())
    return picture, f"{model.finding_names[which]} {sure:.2f}{'' if hot else ', fixed box'}"


def drawn(
    pixels: Any, heat: Any = None, boxes: Any = (), dots: Any = (), shift: float = 0.0
) -> Any:
    """A view [1, 1, h, w]; heat over all of it, clear at 0 (shift: see `box_of_heat`)."""
    picture = Image.fromarray(pixels[0, 0].numpy()).convert("RGB").resize((SIDE, SIDE))
    if heat is not None:
        level = (190 * heat.clamp(min=0) / heat.max().clamp(min=1e-12)).byte()
        cover = Image.fromarray(np.pad(level.numpy(), 1, "edge"))
        first, past = 1 - shift, 1 - shift + len(heat)
        bilinear, ends = Image.Resampling.BILINEAR, (first, first, past, past)
        picture.paste(WARM, (0, 0), cover.resize((SIDE, SIDE), bilinear, ends))
    pen, scale = ImageDraw.Draw(picture), SIDE / pixels.shape[-1]
    for box, colour in boxes:
        pen.rectangle((scale * box).tolist(), outline=colour, width=2)
    for x, y in (SIDE * dots).tolist() if len(dots) else ():
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline=BLUE)
    return picture


def sheet(rows: list[Row]) -> Image.Image:
    titles = list(dict.fromkeys(t for tiles in sorted(rows, key=len)[::-1] for t in tiles))
    if not titles:
        raise ValueError("none of the images looked at has boxes or gaze")
    out = Image.new("RGB", ((SIDE + 8) * len(titles), LINE + (SIDE + LINE + 8) * len(rows)))
    pen = ImageDraw.Draw(out)
    for column, title in enumerate(titles):
        x = column * (SIDE + 8) + 4
        pen.text((x, 1), title, "white", FONT)
        for line, (picture, caption) in [(n, r[title]) for n, r in enumerate(rows) if title in r]:
            y, alarm = LINE + line * (SIDE + LINE + 8) + 4, "exhausted" in caption
            pen.rectangle((x - 4, y - 4, x + SIDE + 3, y + SIDE + 3), RED if alarm else "black")
            out.paste(picture, (x, y))
            pen.text((x, y + SIDE + 2), caption[:34], RED if alarm else "white", FONT)
    return out


if __name__ == "__main__":
    main()
