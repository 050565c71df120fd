"""One shard copied member by member, its records with a map of attention for each image."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Manifest, Shard, read_index
from lightning_rad.modalities.gaze import packed
from lightning_rad.sharding.indexing import (
    Layout,
    Sample,
    ShardRecord,
    file_digest,
    index_shard,
    pictures_of,
    samples,
    short_key,
)
from lightning_rad.sharding.tar import Member
from lightning_rad.sharding.write import LAYOUT

Predict = Callable[[Sequence[tuple[bytes, str]]], Sequence[npt.NDArray[np.uint8] | None]]
"""Encoded images and their suffixes -> a map [S, S] over each whole picture, of any scale; None for
an image that cannot be decoded."""

FIELD: Final = "saliency"
UNREADABLE: Final = "unreadable image"


def annotate_shard(
    source: Manifest,
    shard: Shard,
    out: Path,
    workshop: Path,
    predict: Predict,
    *,
    batch: int,
    count: Callable[[int], None],
) -> ShardRecord:
    """Write `out/<shard>.tar` and `.idx`: made in the workshop folder, moved when complete.

    source: the set that the shard is of. batch: images predicted at a time, more by a study at
    most. count: told how many images are done, now and then. The record's `rejected` names each
    image without a map. Raises ValueError where the tar is not the one that the manifest describes,
    or a record has no place for maps.
    """
    tar = source.root / shard.file
    if file_digest(tar) != shard.sha256:
        raise ValueError(f"{tar}: not the shard that the manifest describes (damaged?)")
    made, index = (
        workshop / f"{Path(shard.file).stem}.{kind}.{os.getpid()}.part" for kind in ("tar", "idx")
    )
    foreign = source.details.get("indexed")
    layout = Layout(image=foreign["image"]) if foreign else LAYOUT
    without: list[tuple[str, str]] = []
    with made.open("wb") as file, tar.open("rb") as old:
        # names of `shards build` are short ASCII: this is then plain USTAR, as it writes it
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new:
            for group in _groups(tar, layout, batch):
                without += _copy(group, old.fileno(), new, predict)
                count(sum(len(each.pictures) for each in group))
        file.flush()
        os.fsync(file.fileno())
    studies, _ = read_index(source.root / shard.index)
    patients = {bytes(study["key"]): int(study["patient"]) for study in studies}
    record = index_shard(
        made,
        index,
        shard_file=Path(shard.file).name,
        index_file=Path(shard.index).name,
        split=shard.split,
        layout=layout,
        patient_of=lambda sample, _: patients[short_key(sample.key)],
    )
    made.replace(out / record.shard.file)
    index.replace(out / record.shard.index)
    return replace(record, rejected=tuple(without))


@dataclass(frozen=True, slots=True)
class _Study:
    """A sample of a tar, with its images: ordinal, member, last suffix."""

    sample: Sample
    pictures: list[tuple[int, Member, str]]


def _groups(tar: Path, layout: Layout, batch: int) -> Iterator[list[_Study]]:
    """The studies of a tar in order, so many at a time that they hold a batch of images."""
    group: list[_Study] = []
    images = 0
    for sample in samples(tar):
        group.append(_Study(sample, pictures_of(tar, sample, layout)))
        images += len(group[-1].pictures)
        if images >= batch:
            yield group
            group, images = [], 0
    if group:
        yield group


def _copy(
    group: Sequence[_Study], old: int, new: tarfile.TarFile, predict: Predict
) -> list[tuple[str, str]]:
    """Append some studies to the new tar; returns the images without a map."""
    bodies = [
        {m.name: os.pread(old, m.size, m.offset) for m in study.sample.members.values()}
        for study in group
    ]
    shown = [(i, *picture) for i, study in enumerate(group) for picture in study.pictures]
    maps = predict([(bodies[i][member.name], suffix) for i, _, member, suffix in shown])
    found = [dict[str, npt.NDArray[np.uint8] | None]() for _ in group]
    for (i, ordinal, _, suffix), map_SS in zip(shown, maps, strict=True):
        found[i][f"{ordinal:02d}.{suffix}"] = map_SS
    without = []
    for study, body, maps_of in zip(group, bodies, found, strict=True):
        key, member = study.sample.key, study.sample.members.get(LAYOUT.metadata)
        name = f"{key}.{LAYOUT.metadata}" if member is None else member.name
        if maps_of:
            body[name] = _record(key, body.get(name, b"{}"), maps_of)
            without += [(f"{key} image {f}", UNREADABLE) for f, m in maps_of.items() if m is None]
        for each, data in body.items():
            _append(new, each, data)
    return without


def _record(key: str, said: bytes, maps: Mapping[str, npt.NDArray[np.uint8] | None]) -> bytes:
    """The JSON of a study with the maps of its images, by file; those of another predictor go."""
    record = json.loads(said)
    images = record.setdefault("images", []) if isinstance(record, dict) else None
    if not isinstance(images, list) or not all(isinstance(entry, dict) for entry in images):
        raise ValueError(f"annotate: the JSON of '{key}' has no place for maps, a list 'images'")
    for file, map_SS in maps.items():
        entry = next((e for e in images if _ordinal(e) == int(file.partition(".")[0])), None)
        if entry is None:
            images.append(entry := {"file": file})
        entry.pop(FIELD, None)
        if map_SS is not None:
            entry[FIELD] = packed(map_SS)
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _ordinal(entry: Mapping[str, Any]) -> int:
    """Which image an entry is of, as readers take it (`manifest.image_entry`); -1 for none."""
    number = str(entry.get("file", "")).partition(".")[0]
    return int(number) if number.isdecimal() else -1


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o444
    tar.addfile(entry, io.BytesIO(data))
