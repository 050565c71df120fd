"""Shards with reports to read: a reading made from them, and copies in which something is amiss."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

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
from lightning_rad.manifest import load_index, load_manifest, read_index, write_index
from lightning_rad.modalities.reading import Reading, ReadingSettings
from lightning_rad.modalities.words import Words, train_words
from lightning_rad.schema import Reports

VIEWS = [RandomView(16, crop=Crop())] * 2
SETTINGS: dict[str, Any] = {
    "views": VIEWS,
    "evaluation": Evaluation(WholeImage(16), batch=8),
    "global_batch": 8,
    "unit": "study",
    "shuffle": Shuffle(groups=4, window=16),
    "loading": Loading(threads=0),
}


def source_of(shards: Path, split: str = "train") -> ShardSource:
    manifest = load_manifest(shards)
    return ShardSource(load_index(manifest, manifest.of_split(split)))


def reports_of(source: ShardSource) -> list[bytes]:
    return [source.report(study) for study in range(len(source.index.studies))]


def reading_of(shards: Path, *, limit: int = 60, text_limit: int = 30, **settings: Any) -> Reading:
    """Two tokenisers of the shards' own words, of two limits."""
    json = train_words([data.decode() for data in reports_of(source_of(shards))], vocabulary=200)
    words = {
        "caption": Words(json, limit=limit, keep_end=False),
        "text": Words(json, limit=text_limit, keep_end=True),
    }
    return Reading(words, ReadingSettings("tokenizer.json", limit=limit, **settings))


def altered(
    shards: Path,
    to: Path,
    *,
    without: Sequence[int] = (),
    said: Mapping[int, bytes] | None = None,
    torn: Sequence[int] = (),
    lost: Sequence[int] = (),
    split: str = "train",
) -> Path:
    """A copy in which some studies of a split have no report, or another, and some images are torn.

    said: what a study's report says instead. torn: numbers of images of which the first bytes are
    gone. lost: studies whose report lies beyond the end of the shard.
    """
    shutil.copytree(shards, to)
    manifest = load_manifest(to)
    mine = [shard for shard in manifest.shards if shard.split == split]
    study, image, changed = 0, 0, {}
    for shard in mine:
        studies, images = (array.copy() for array in read_index(to / shard.index))
        with (to / shard.file).open("r+b") as tar:
            for row in studies:
                if study in without:
                    row["report_size"] = 0
                if data := (said or {}).get(study):
                    # at the end of the tar, where there is room for any length
                    row["report_offset"], row["report_size"] = tar.seek(0, 2), len(data)
                    tar.write(data)
                if study in lost:
                    row["report_offset"] = tar.seek(0, 2) - int(row["report_size"]) // 2
                study += 1
            for row in images:
                if image in torn:
                    tar.seek(int(row["offset"]))
                    tar.write(b"\0" * 40)
                image += 1
        write_index(to / shard.index, studies, images)
        digest = sha256((to / shard.index).read_bytes()).hexdigest()
        changed[shard.file] = replace(shard, index_sha256=digest)
    shards_now = tuple(changed.get(s.file, s) if s.split == split else s for s in manifest.shards)
    replace(manifest, shards=shards_now).save()
    return to


def images_of(source: ShardSource, study: int) -> list[int]:
    return np.flatnonzero(source.index.images["study"] == study).tolist()


def study_of(source: ShardSource, image: int) -> int:
    return int(source.index.images[image]["study"])


def data_of(manifest: Any, reading: Reading | None, **changes: Any) -> RadiographData:
    """Set up as a trainer does it: the data first, then an objective that reads, or does not."""
    if isinstance(manifest, Path):
        manifest = str(manifest)
    data = RadiographData(manifest, **(SETTINGS | changes))
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    if reading is not None:
        data.read_reports(reading)
    return data


def batches_of(data: RadiographData, count: int) -> list[StreamBatch]:
    return list(islice(iter(data.train_dataloader()), count))


def rows_of(report: Reports) -> list[tuple[Any, ...]]:
    """Hash, mirrored or not, and tokens without their padding, row by row."""
    return [
        (
            int(report.hash[row]),
            bool(report.flipped[row]),
            *(tuple(t[row][t[row] >= 0].tolist()) for t in report.tokens.values()),
        )
        for row in range(len(report.hash))
    ]


def bits(batch: StreamBatch) -> list[tuple[Any, ...]]:
    """All that a batch holds, row by row."""
    assert batch.report is not None
    pixels = batch.pixels if isinstance(batch.pixels, torch.Tensor) else batch.pixels.render()
    return [
        (
            int(batch.unit[row]),
            int(batch.patient[row]),
            *batch.image[:, row].tolist(),
            pixels[:, row].numpy().tobytes(),
            *report,
        )
        for row, report in enumerate(rows_of(batch.report))
    ]
