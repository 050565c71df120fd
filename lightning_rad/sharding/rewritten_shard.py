"""One shard written once more, its studies changed on the way."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning_rad.manifest import Manifest, Shard, read_index
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
from lightning_rad.sharding.write import LAYOUT, spelled


class Picture(NamedTuple):
    """An image of a study: the suffix it goes by among the members, and the last part of that."""

    ordinal: int
    suffix: str
    kind: str


@dataclass(slots=True)
class Study:
    """A study on its way into a new shard.

    members: suffix -> bytes, in the order of the tar. names: suffix -> name in the tar.
    """

    key: str
    members: dict[str, bytes]
    names: Mapping[str, str]
    pictures: list[Picture]

    def record(self) -> Any:
        """Its parsed JSON, {} where it has none."""
        return json.loads(self.members.get(LAYOUT.metadata, b"{}"))

    def keep(self, record: dict[str, Any]) -> None:
        """Replace its JSON, spelled as `shards build` spells it."""
        self.members[LAYOUT.metadata] = spelled(record)


Change = Callable[[Sequence[Study]], list[tuple[str, str]]]
"""Changes some studies in place; (where, why) of each image that it could not change."""


def rewrite_shard(
    source: Manifest,
    shard: Shard,
    out: Path,
    workshop: Path,
    change: Change,
    *,
    batch: int,
    count: Callable[[int], None],
) -> ShardRecord:
    """Write `out/<shard>.tar` and `.idx`: made in the workshop folder, moved when complete.

    source: the set that the shard is of. batch: images changed at a time, more by a study at most.
    count: told how many images are done, now and then. The record's `rejected` is what the change
    could not do. Raises ValueError where the tar is not the one that the manifest describes.
    """
    tar = source.root / shard.file
    if file_digest(tar) != shard.sha256:
        raise ValueError(f"{tar}: not the shard that the manifest describes (damaged?)")
    made, index = (
        workshop / f"{Path(shard.file).stem}.{kind}.{os.getpid()}.part" for kind in ("tar", "idx")
    )
    foreign = source.details.get("indexed")
    layout = Layout(image=foreign["image"]) if foreign else LAYOUT
    left: list[tuple[str, str]] = []
    with made.open("wb") as file, tar.open("rb") as old:
        # names of `shards build` are short ASCII: this is then plain USTAR, as it writes it
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new:
            for group in _groups(tar, layout, batch):
                studies = [_study(*sample, old.fileno()) for sample in group]
                left += change(studies)
                for study in studies:
                    for suffix, data in study.members.items():
                        _append(new, study.names.get(suffix, f"{study.key}.{suffix}"), data)
                count(sum(len(pictures) for _, pictures in group))
        file.flush()
        os.fsync(file.fileno())
    studies_S, _ = read_index(source.root / shard.index)
    patients = {bytes(study["key"]): int(study["patient"]) for study in studies_S}
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
    return replace(record, rejected=tuple(left))


_Group = list[tuple[Sample, list[Picture]]]


def _groups(tar: Path, layout: Layout, batch: int) -> Iterator[_Group]:
    """The studies of a tar in order, so many at a time that they hold a batch of images."""
    group: _Group = []
    images = 0
    for sample in samples(tar):
        suffix_of = {member: suffix for suffix, member in sample.members.items()}
        found = pictures_of(tar, sample, layout)
        group.append((sample, [Picture(n, suffix_of[m], kind) for n, m, kind in found]))
        images += len(found)
        if images >= batch:
            yield group
            group, images = [], 0
    if group:
        yield group


def _study(sample: Sample, pictures: list[Picture], handle: int) -> Study:
    bodies = {s: os.pread(handle, m.size, m.offset) for s, m in sample.members.items()}
    names = {suffix: member.name for suffix, member in sample.members.items()}
    return Study(sample.key, bodies, names, pictures)


def _append(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o444
    tar.addfile(entry, io.BytesIO(data))
