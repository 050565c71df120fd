"""From a tar to its index: members grouped to studies, and what they hold counted."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import IMAGE, STUDY, Shard, write_index
from lightning_rad.schema import IMAGE_SUFFIXES
from lightning_rad.sharding.tar import Member, ShardError, walk

_NAME: Final = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
"""Key and suffix of a member, cut where webdataset cuts them: at the first dot of the base name."""

_ORDINAL: Final = re.compile(r"(\d+)\.\w+")


IMAGE_SUFFIX: Final = r"(\d+\.)?(jpg|jpeg|png|pgm)"
"""Regular expression of the whole suffix of an image member: `00.jpg`, and plain `jpg`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which suffixes of a sample mean what.

    image: regular expression that the whole suffix of an image matches. metadata, report, gaze:
    the suffix of that member. Members with other suffixes are counted, not read.
    """

    image: str = IMAGE_SUFFIX
    metadata: str = "json"
    report: str = "txt"
    gaze: str = "gaze.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """The members of one key: suffix (lower case) -> member, in the order of the tar."""

    key: str
    members: dict[str, Member]


@dataclass(slots=True)
class Tally:
    """What a shard holds, in counts.

    labels: finding -> {"present": n, "absent": n}. fields: optional members that occur. views:
    word -> images. skipped: samples without an image. ignored: members with other suffixes.
    """

    patients: set[int] = field(default_factory=set)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    fields: set[str] = field(default_factory=set)
    views: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    ignored: int = 0

    def add(self, metadata: dict[str, Any]) -> None:
        """Count the images that a study's JSON describes; JSON of another make counts nothing."""
        images = metadata.get("images")
        for image in images if isinstance(images, list) else []:
            if not isinstance(image, dict):
                continue
            self.views[str(image.get("view", ""))] += 1
            self.fields |= {name for name in ("boxes", "saliency") if image.get(name)}
            labels = image.get("labels")
            for finding, value in (labels if isinstance(labels, dict) else {}).items():
                counts = self.labels.setdefault(finding, {"present": 0, "absent": 0})
                if value is not None:
                    counts["present" if value else "absent"] += 1


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One shard's line in the manifest and what the manifest's totals are added up from."""

    shard: Shard
    labels: dict[str, dict[str, int]]
    fields: list[str]
    views: dict[str, int]
    skipped: int = 0
    ignored: int = 0
    rejected: tuple[tuple[str, str], ...] = ()
    scrubbed: dict[str, int] = field(default_factory=dict)
    review: list[dict[str, Any]] = field(default_factory=list)


PatientOf = Callable[[Sample, dict[str, Any]], int]
"""(sample, its JSON or {}) -> hash of the patient, 0 where unknown."""


def index_shard(
    tar: Path,
    index: Path,
    *,
    shard_file: str,
    index_file: str,
    split: str,
    layout: Layout,
    patient_of: PatientOf,
) -> ShardRecord:
    """Write the index of a tar and return its record. Raises ShardError.

    tar, index: where the bytes lie now. shard_file, index_file: what the manifest calls them,
    relative to its folder.
    """
    studies, images, tally = scan(tar, layout, patient_of)
    write_index(index, studies, images)
    shard = Shard(
        file=shard_file,
        split=split,
        bytes=tar.stat().st_size,
        sha256=file_digest(tar),
        index=index_file,
        index_sha256=file_digest(index),
        patients=len(tally.patients),
        studies=len(studies),
        images=len(images),
    )
    return ShardRecord(
        shard=shard,
        labels=tally.labels,
        fields=sorted(tally.fields),
        views=dict(sorted(tally.views.items())),
        skipped=tally.skipped,
        ignored=tally.ignored,
    )


def scan(
    tar: Path, layout: Layout, patient_of: PatientOf, *, lenient: bool = False
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], Tally]:
    """The STUDY and IMAGE records of a tar, and what it holds. Raises ShardError.

    lenient: take JSON that is malformed for {}, as if there were none.
    """
    tally = Tally()
    studies: list[tuple[Any, ...]] = []
    images: list[tuple[Any, ...]] = []
    with tar.open("rb") as file:
        for sample in samples(tar):
            pictures = pictures_of(tar, sample, layout)
            parts = [sample.members.get(s) for s in (layout.metadata, layout.report, layout.gaze)]
            tally.ignored += len(sample.members) - len(pictures) - sum(p is not None for p in parts)
            if not pictures:
                tally.skipped += 1
                continue
            metadata = _metadata(tar, sample, parts[0], file.fileno(), lenient)
            patient = patient_of(sample, metadata)
            tally.patients |= {patient} - {0}
            tally.fields |= {n for n, p in zip(("report", "gaze"), parts[1:], strict=True) if p}
            tally.add(metadata)
            images += [(len(studies), n, m.offset, m.size, s) for n, m, s in pictures]
            places = [x for p in parts for x in ((p.offset, p.size) if p else (0, 0))]
            studies.append((short_key(sample.key), patient, *places))
    return np.array(studies, STUDY), np.array(images, IMAGE), tally


def samples(tar: Path) -> Iterator[Sample]:
    """The members of a tar grouped by key. Raises ShardError for a key or member that recurs."""
    seen: set[str] = set()
    current: Sample | None = None
    for member in walk(tar):
        match = _NAME.fullmatch(member.name)
        if match is None or member.name.startswith("__"):
            continue  # hidden files and names without a suffix: webdataset passes them over too
        key, suffix = match[1], match[2].lower()
        if current is None or key != current.key:
            if current is not None:
                yield current
            if key in seen:
                raise ShardError(
                    f"{tar}: key '{key}' comes back at offset {member.offset} after other keys: "
                    f"the members of a sample must be adjacent"
                )
            seen.add(key)
            current = Sample(key, {})
        if suffix in current.members:
            raise ShardError(f"{tar}: duplicate member '{member.name}' at offset {member.offset}")
        current.members[suffix] = member
    if current is not None:
        yield current


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_key(key: str) -> bytes:
    """A key as the index holds it: at most 64 bytes, a longer one ends in a digest of the whole."""
    data = key.encode("utf-8", "surrogateescape")
    return (
        data
        if len(data) <= 64
        else data[:47] + b"~" + hashlib.sha256(data).hexdigest()[:16].encode()
    )


def pictures_of(tar: Path, sample: Sample, layout: Layout) -> list[tuple[int, Member, str]]:
    """(ordinal, member, last suffix) of a sample's images: the NN of `<key>.NN.jpg`, else 0, 1.

    Raises ShardError for an image of a suffix that readers cannot decode.
    """
    found = [(s, m) for s, m in sample.members.items() if re.fullmatch(layout.image, s)]
    for suffix, member in found:
        if suffix.rpartition(".")[2] not in IMAGE_SUFFIXES:
            raise ShardError(
                f"{tar}: image '{layout.image}' matches '{member.name}', which readers cannot "
                f"decode; accepted are {', '.join(IMAGE_SUFFIXES)}"
            )
    numbers = [_ORDINAL.fullmatch(s) for s, _ in found]
    numbered = all(numbers) and len({int(n[1]) for n in numbers if n}) == len(found)
    return [
        (int(n[1]) if numbered and n else place, member, suffix.rpartition(".")[2])
        for place, ((suffix, member), n) in enumerate(zip(found, numbers, strict=True))
    ]


def _metadata(
    tar: Path, sample: Sample, member: Member | None, handle: int, lenient: bool
) -> dict[str, Any]:
    if member is None:
        return {}
    try:
        body = json.loads(os.pread(handle, member.size, member.offset))
    except (ValueError, RecursionError) as error:
        if lenient:
            return {}
        raise ShardError(f"{tar}: the JSON of '{sample.key}' is malformed: {error}") from None
    return body if isinstance(body, dict) else {}
