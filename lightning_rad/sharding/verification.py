"""Verifying shards: every byte re-read, and no patient or picture on both sides of a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from lightning_rad.manifest import Manifest, ManifestError, load_manifest
from lightning_rad.sharding.audit import SeenImage, ShardAudit, audit_shard
from lightning_rad.sharding.fingerprint import near_pairs


@dataclass(slots=True)
class Report:
    """What verifying found.

    problems: what must not be, one line each. notes: what a user should know, such as the same
    picture twice in one manifest. images: how many were decoded.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(slots=True)
class _Holding:
    """What one manifest holds, by split."""

    manifest: Manifest
    patients: dict[str, set[int]]
    images: dict[str, list[SeenImage]]

    @property
    def name(self) -> str:
        return str(self.manifest.root)


def verify(manifests: list[Path], *, workers: int | None = None) -> Report:
    """Re-read shards in full and look for patients and pictures that cross a split.

    Over several manifests a picture that is in a train split of one and in a val or test split of
    another is refused, whether its pixels are equal or nearly so (re-encoded, resized). Within one
    manifest the same picture twice is a note, across splits too.

    Args:
        manifests: Manifests or their folders; those to be used together, together.
        workers: Threads; default one a core.
    """
    report = Report()
    holdings: list[_Holding] = []
    for path in manifests:
        try:
            holdings.append(_hold(load_manifest(path), report, workers))
        except ManifestError as error:
            report.problems.append(str(error))
    for holding in holdings:
        _check_patients(holding, holding, report)
        _note_repeats(holding, report)
    for one, other in combinations(holdings, 2):
        _check_namespace(one, other, report)
        _check_pictures(one, other, report)
        _check_pictures(other, one, report)
    return report


def _hold(manifest: Manifest, report: Report, workers: int | None) -> _Holding:
    """Re-read all shards of a manifest."""
    holding = _Holding(manifest, defaultdict(set), defaultdict(list))
    owner: dict[tuple[str, int], str] = {}
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        audits = pool.map(lambda shard: audit_shard(manifest, shard), manifest.shards)
        for shard, audit in zip(manifest.shards, audits, strict=True):
            _merge(holding, shard.split, audit)
            report.problems += audit.problems
            report.images += len(audit.images)
            if audit.idle:
                idle = "fixations lie outside their picture or last no time, and do not count"
                report.notes.append(f"{manifest.root / shard.file}: {audit.idle} {idle}")
            for patient in audit.patients:
                first = owner.setdefault((shard.split, patient), shard.file)
                if first != shard.file and not manifest.details.get("indexed"):
                    report.problems.append(
                        f"{manifest.root}: patient {patient:016x} is in {first} and {shard.file}"
                    )
    if not manifest.shards:
        report.problems.append(f"{manifest.root}: the manifest lists no shard")
    return holding


def _merge(holding: _Holding, split: str, audit: ShardAudit) -> None:
    holding.patients[split] |= audit.patients
    holding.images[split] += audit.images


def _check_patients(one: _Holding, other: _Holding, report: Report) -> None:
    """No patient in two splits, within a manifest or over two of one namespace and salt."""
    for a in sorted(one.patients):
        for b in sorted(other.patients):
            if a == b or (one is other and a > b):
                continue
            for patient in sorted(one.patients[a] & other.patients[b]):
                report.problems.append(
                    f"leak: patient {patient:016x} is in {a} of {one.name} and {b} of {other.name}"
                )


def _check_namespace(one: _Holding, other: _Holding, report: Report) -> None:
    mine, theirs = one.manifest.details, other.manifest.details
    if mine.get("namespace") != theirs.get("namespace"):
        return
    if mine.get("salt") != theirs.get("salt"):
        report.problems.append(
            f"{one.name} and {other.name}: same namespace '{mine.get('namespace')}' but another "
            f"salt: their patients cannot be compared; build both with one salt file"
        )
        return
    _check_patients(one, other, report)


def _check_pictures(train: _Holding, held_out: _Holding, report: Report) -> None:
    """Refuse pictures that one manifest trains on and another evaluates on."""
    left = train.images.get("train", [])
    right = [i for split in ("val", "test") for i in held_out.images.get(split, [])]
    for a, b, distance in _same_pictures(left, right):
        report.problems.append(
            f"leak: {_phrase(distance)}: train {a.where} and {b.split} {b.where}"
        )


def _note_repeats(holding: _Holding, report: Report) -> None:
    images = [image for split in sorted(holding.images) for image in holding.images[split]]
    for a, b, distance in _same_pictures(images, None):
        across = "" if a.split == b.split else f" ACROSS SPLITS {a.split} and {b.split}"
        report.notes.append(f"{_phrase(distance)}{across}: {a.where} and {b.where}")


def _same_pictures(
    left: Sequence[SeenImage], right: Sequence[SeenImage] | None
) -> list[tuple[SeenImage, SeenImage, int | None]]:
    """Pairs of the same picture: (one, other, bits that differ or None where pixels are equal)."""
    others = left if right is None else right
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(others):
        rows[image.pixels].append(row)
    equal = {
        (i, j)
        for i, image in enumerate(left)
        for j in rows.get(image.pixels, ())
        if right is not None or i < j
    }
    near = near_pairs(
        [image.fingerprint for image in left],
        None if right is None else [image.fingerprint for image in right],
    )
    found: dict[tuple[int, int], int | None] = {(i, j): d for i, j, d in near}
    found |= dict.fromkeys(equal)
    return [(left[i], others[j], d) for (i, j), d in sorted(found.items(), key=lambda f: f[0])]


def _phrase(distance: int | None) -> str:
    if distance is None:
        return "same pixels"
    return f"same picture (fingerprints {distance} of 256 bits apart)"
