"""Writing one shard: read its studies, encode them, tar them, index the tar."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from webdataset import TarWriter

from lightning_rad.sharding.encode import encode_image, fault_of
from lightning_rad.sharding.guard import Guard
from lightning_rad.sharding.indexing import Layout, ShardRecord, index_shard
from lightning_rad.sharding.plan import Job, PlacedStudy
from lightning_rad.sharding.recipe import Recipe
from lightning_rad.sharding.source import Rejection, Source
from lightning_rad.storage.folder import RemoteFolder

LAYOUT: Final = Layout()
"""How the shards of this package are laid out."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What any shard of a build is made with, and where: in `workshop`, then brought to `out`."""

    source: Source
    recipe: Recipe
    out: Path | RemoteFolder
    workshop: Path


def write_shard(job: Job, bench: Bench, count_image: Callable[[], None]) -> ShardRecord:
    """Make `out/<job>.tar` and `.idx`: written in the workshop folder, brought there when complete.

    count_image: called once for each image planned, as its study is done. The bytes are a pure
    function of job, source and recipe. A shard of which no image was usable is not kept; its
    record says 0 images.
    """
    tar = bench.workshop / f"{job.name}.tar.{os.getpid()}.part"
    index = bench.workshop / f"{job.name}.idx.{os.getpid()}.part"
    rejected: list[Rejection] = []
    guard = Guard(bench.recipe.privacy)
    with tar.open("wb") as file:
        with TarWriter(file, encoder=False, mtime=0, user="", group="", mode=0o444) as writer:
            for study in job.studies:
                sample = make_sample(study, bench, rejected, guard)
                if sample:
                    writer.write({"__key__": study.key} | sample)
                for _ in study.planned.images:
                    count_image()
        file.flush()
        os.fsync(file.fileno())
    record = index_shard(
        tar,
        index,
        shard_file=f"{job.name}.tar",
        index_file=f"{job.name}.idx",
        split=job.split,
        layout=LAYOUT,
        patient_of=lambda _, metadata: int(metadata["patient"], 16),
    )
    if record.shard.images:
        _bring(tar, bench.out, record.shard.file)
        _bring(index, bench.out, record.shard.index)
    else:
        tar.unlink()
        index.unlink()
    return replace(
        record,
        rejected=tuple((r.where, r.reason) for r in rejected),
        scrubbed=dict(guard.scrubbed),
        review=guard.review,
    )


def _bring(made: Path, out: Path | RemoteFolder, name: str) -> None:
    """Move a complete file to where it belongs; what a store holds of it is checked by its size."""
    if isinstance(out, Path):
        made.replace(out / name)
    else:
        out.put(name, made)
        made.unlink()


def make_sample(
    study: PlacedStudy, bench: Bench, rejected: list[Rejection], guard: Guard
) -> dict[str, bytes]:
    """The members of a study, suffix -> bytes; none where no image was usable."""
    read = bench.source.read(study.planned)
    rejected += read.rejected
    usable = []
    for place, radiograph in enumerate(read.images):
        reason = fault_of(radiograph, bench.recipe.labels)
        if reason is None:
            usable.append((f"{study.key} image {place}", radiograph))
        else:
            rejected.append(Rejection(f"{study.key} image {place}", reason))
    if not usable:
        if not read.images and not read.rejected:
            rejected.append(Rejection(study.key, "study without images"))
        return {}
    width = max(2, len(str(len(usable) - 1)))
    sample: dict[str, bytes] = {}
    images, gaze = [], {}
    for place, (where, radiograph) in enumerate(usable):
        suffix, data, entry, faults = encode_image(radiograph, bench.recipe.image)
        rejected += (Rejection(where, fault) for fault in faults)
        ordinal = f"{place:0{width}d}"
        sample[f"{ordinal}.{suffix}"] = data
        guard.look(study.key, f"{ordinal}.{suffix}", radiograph)
        images.append({"file": f"{ordinal}.{suffix}"} | entry)
        if radiograph.fixations:
            gaze[ordinal] = [
                [round(f.x, 5), round(f.y, 5), f.seconds] for f in radiograph.fixations
            ]
    metadata = {
        "patient": study.patient,
        "study": study.study,
        "split": study.split,
        "source": bench.recipe.name,
        "images": images,
    }
    sample["json"] = spelled(metadata)
    if read.report:
        sample["txt"] = guard.report(read.report).encode()
    if gaze:
        sample["gaze.json"] = spelled(gaze)
    return sample


def spelled(value: object) -> bytes:
    """A JSON member: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
