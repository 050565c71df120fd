"""One shard copied member by member, its records with a map of attention for each image."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Shard
from lightning_rad.modalities.gaze import packed
from lightning_rad.sharding.indexing import Sample, ShardRecord, file_digest, index_shard, samples
from lightning_rad.sharding.write import LAYOUT

Predict = Callable[[Sequence[tuple[bytes, str]]], Sequence[npt.NDArray[np.uint8] | None]]
"""Encoded images and their suffixes -> a map [S, S] over each whole picture, of any scale; None for
an image that cannot be decoded."""

FIELD: Final = "saliency"
UNREADABLE: Final = "unreadable image"


def annotate_shard(
    tar: Path,
    shard: Shard,
    out: Path,
    workshop: Path,
    predict: Predict,
    *,
    batch: int,
    count: Callable[[int], None],
) -> ShardRecord:
    """Write `out/<shard>.tar` and `.idx`: made in the workshop folder, moved when complete.

    tar: where the shard lies. batch: images predicted at a time, more by a study at most. count:
    told how many images are done, now and then. The record's `rejected` names each image without a
    map. Raises ValueError where the tar is not the one that the manifest describes.
    """
    if file_digest(tar) != shard.sha256:
        raise ValueError(f"{tar}: not the shard that the manifest describes (damaged?)")
    made, index = (
        workshop / f"{Path(shard.file).stem}.{kind}.{os.getpid()}.part" for kind in ("tar", "idx")
    )
    without: list[tuple[str, str]] = []
    with made.open("wb") as file, tar.open("rb") as old:
        # names are short ASCII: this is plain USTAR, as `shards build` writes it
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new:
            for group in _groups(tar, batch):
                without += _copy(group, old.fileno(), new, predict)
                count(sum(len(_pictures(sample)) for sample in group))
        file.flush()
        os.fsync(file.fileno())
    record = index_shard(
        made,
        index,
        shard_file=shard.file,
        index_file=shard.index,
        split=shard.split,
        layout=LAYOUT,
        patient_of=lambda _, metadata: int(metadata["patient"], 16),
    )
    made.replace(out / shard.file)
    index.replace(out / shard.index)
    return replace(record, rejected=tuple(without))


def _groups(tar: Path, batch: int) -> Iterator[list[Sample]]:
    """The studies of a tar in order, so many at a time that they hold a batch of images."""
    group: list[Sample] = []
    images = 0
    for sample in samples(tar):
        group.append(sample)
        images += len(_pictures(sample))
        if images >= batch:
            yield group
            group, images = [], 0
    if group:
        yield group


def _pictures(sample: Sample) -> list[str]:
    """Suffixes of the images of a study that `shards build` wrote."""
    return [s for s in sample.members if s.rpartition(".")[2] in ("jpg", "png")]


def _copy(
    group: Sequence[Sample], old: int, new: tarfile.TarFile, predict: Predict
) -> list[tuple[str, str]]:
    """Append some studies to the new tar; returns the images without a map."""
    bodies = [
        {s: os.pread(old, m.size, m.offset) for s, m in sample.members.items()} for sample in group
    ]
    place = [(i, s) for i, sample in enumerate(group) for s in _pictures(sample)]
    maps = predict([(bodies[i][s], s.rpartition(".")[2]) for i, s in place])
    found = dict(zip(place, maps, strict=True))
    without = []
    for i, sample in enumerate(group):
        body = json.loads(bodies[i][LAYOUT.metadata])
        for entry in body["images"]:
            entry.pop(FIELD, None)  # of another predictor
            map_SS = found[i, entry["file"]]
            if map_SS is None:
                without.append((f"{sample.key} image {entry['file']}", UNREADABLE))
            else:
                entry[FIELD] = packed(map_SS)
        bodies[i][LAYOUT.metadata] = _json(body)
        for suffix, member in sample.members.items():
            _append(new, member.name, bodies[i][suffix])
    return without


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o444
    tar.addfile(entry, io.BytesIO(data))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
