"""Shards with findings and gaze to read: copies in which pictures, records and gaze are given."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pytorch_lightning import Trainer

from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.source import ShardSource
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest, read_index, write_index
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.schema import Findings, Gaze

SETTINGS: dict[str, Any] = {
    "views": [RandomView(16, crop=Crop())] * 2,
    "evaluation": Evaluation(WholeImage(16), batch=8),
    "global_batch": 8,
    "shuffle": Shuffle(groups=4, window=16),
    "loading": Loading(threads=0),
}

SIDES = (240, 300)
CORNERS = (90, 60, 210, 160)


def edited(
    shards: Path,
    to: Path,
    *,
    entry: Callable[[int, dict[str, Any]], dict[str, Any]] | None = None,
    picture: Callable[[int], np.ndarray] | None = None,
    members: Mapping[tuple[int, str], bytes] | None = None,
    torn: Sequence[int] = (),
    split: str = "train",
    **manifest_changes: Any,
) -> Path:
    """A copy in which some of a split is other; what is new lies at the end of each tar.

    entry: from the number of an image and what its record says to what it says now. picture: from
    the number of an image to its pixels. members: of (study, "json", "report" or "gaze"), b"" to
    leave it out. torn: images of which the first bytes are gone.
    """
    shutil.copytree(shards, to)
    manifest = load_manifest(to)
    study = image = 0
    changed = {}
    for shard in [shard for shard in manifest.shards if shard.split == split]:
        studies, images = (array.copy() for array in read_index(to / shard.index))
        with (to / shard.file).open("r+b") as tar:
            for row in range(len(studies)):
                _edit_study(tar, studies[row], study + row, members or {})
                if entry is not None:
                    own = [i for i in range(len(images)) if images[i]["study"] == row]
                    _edit_record(tar, studies[row], image + own[0], entry)
            for row in images:
                if picture is not None:
                    data = cv2.imencode(".png", picture(image))[1].tobytes()
                    row["offset"], row["size"] = _append(tar, data)
                    row["suffix"] = b"png"
                if image in torn:
                    tar.seek(int(row["offset"]))
                    tar.write(b"\0" * 40)
                image += 1
        study += len(studies)
        write_index(to / shard.index, studies, images)
        digest = sha256((to / shard.index).read_bytes()).hexdigest()
        changed[shard.file] = replace(shard, index_sha256=digest)
    shards_now = tuple(changed.get(s.file, s) if s.split == split else s for s in manifest.shards)
    replace(manifest, shards=shards_now, **manifest_changes).save()
    return to


def box(label: str, left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    return {"label": label, "x": left, "y": top, "w": right - left, "h": bottom - top}


def boxed(shards: Path, to: Path, boxes: Any, values: Any = None, **changes: Any) -> Path:
    """All images of the train split with the same boxes, and labels."""

    def entry(_: int, said: dict[str, Any]) -> dict[str, Any]:
        return said | {"boxes": boxes} | ({} if values is None else {"labels": values})

    return edited(shards, to, entry=entry, **changes)


def rectangle(_: int) -> np.ndarray:
    picture = np.zeros(SIDES, np.uint8)
    left, top, right, bottom = CORNERS
    picture[top:bottom, left:right] = 255
    return picture


def _append(tar: Any, data: bytes) -> tuple[int, int]:
    offset = tar.seek(0, 2)
    tar.write(data)
    return offset, len(data)


def _edit_study(tar: Any, row: Any, study: int, members: Mapping[tuple[int, str], bytes]) -> None:
    for member in ("json", "report", "gaze"):
        if (data := members.get((study, member))) is not None:
            row[f"{member}_offset"], row[f"{member}_size"] = _append(tar, data)


def _edit_record(tar: Any, row: Any, first: int, entry: Callable[..., dict[str, Any]]) -> None:
    tar.seek(int(row["json_offset"]))
    record = json.loads(tar.read(int(row["json_size"])))
    record["images"] = [entry(first + i, said) for i, said in enumerate(record["images"])]
    row["json_offset"], row["json_size"] = _append(tar, json.dumps(record).encode())


def patients_of(source: ShardSource, images: Sequence[int]) -> list[int]:
    return source.index.studies["patient"][source.index.images["study"][list(images)]].tolist()


def data_of(
    manifest: Any, *reading: FindingReading | GazeReading, stage: str = "fit", **changes: Any
) -> RadiographData:
    """Set up as a trainer does it: the data first, then an objective that reads, or does not."""
    data = RadiographData(
        str(manifest) if isinstance(manifest, Path) else manifest, **(SETTINGS | changes)
    )
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup(stage)
    for each in reading:
        ask = data.read_findings if isinstance(each, FindingReading) else data.read_gaze
        ask(each)
    return data


def batches_of(data: RadiographData, count: int) -> list[StreamBatch]:
    return list(islice(iter(data.train_dataloader()), count))


def pixels_of(batch: StreamBatch) -> torch.Tensor:
    return batch.pixels if isinstance(batch.pixels, torch.Tensor) else batch.pixels.render()


def known_of(findings: Findings) -> list[tuple[Any, ...]]:
    """Labels and boxes without their padding, as [V, R] in one list."""
    every = zip(*(t.flatten(0, 1) for t in _parts(findings)), strict=True)
    return [
        (labels.numpy().tobytes(), boxes[finding >= 0].tolist(), finding[finding >= 0].tolist())
        for labels, boxes, finding in every
    ]


def looked_of(gaze: Gaze) -> list[tuple[Any, ...]]:
    """Maps and points without their padding, as [V, R] in one list."""
    every = zip(*(t.flatten(0, 1) for t in (gaze.map, gaze.points)), strict=True)
    return [(m.numpy().tobytes(), points[~points.isnan().any(1)].tolist()) for m, points in every]


def _parts(findings: Findings) -> tuple[torch.Tensor, ...]:
    return findings.labels, findings.boxes, findings.finding


def bits(batch: StreamBatch) -> list[tuple[Any, ...]]:
    """All that the rows of a batch hold, row by row."""
    pixels, rows = pixels_of(batch), []
    for row in range(len(batch.unit)):
        held: list[Any] = [int(batch.unit[row]), *batch.image[:, row].tolist()]
        held.append(pixels[:, row].numpy().tobytes())
        if batch.findings is not None:
            held.append(known_of(batch.findings.at((slice(None), slice(row, row + 1)))))
        if batch.gaze is not None:
            held.append(looked_of(batch.gaze.at((slice(None), slice(row, row + 1)))))
        rows.append(tuple(held))
    return rows
