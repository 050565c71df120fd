"""Re-reading one shard in full: does every byte hold what the manifest and the JSON say?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from lightning_rad.manifest import Manifest, ManifestError, Shard, read_index
from lightning_rad.modalities.radiograph import Pixels, UnreadableImageError, decode_image
from lightning_rad.sharding.description import faults_of, faults_of_gaze, file_of, identifies
from lightning_rad.sharding.fingerprint import digest_pixels, fingerprint
from lightning_rad.sharding.indexing import Layout, Sample, file_digest, scan, short_key
from lightning_rad.sharding.tar import ShardError

_DAMAGED: Final = object()


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image found in a shard, with what it takes to recognise it elsewhere."""

    where: str
    split: str
    pixels: str
    fingerprint: str


@dataclass(slots=True)
class ShardAudit:
    """What re-reading a shard gave. patients: hashes, the unknown one left out. idle: fixations
    that do not count."""

    problems: list[str] = field(default_factory=list)
    idle: int = 0
    patients: set[int] = field(default_factory=set)
    images: list[SeenImage] = field(default_factory=list)


def audit_shard(manifest: Manifest, shard: Shard) -> ShardAudit:
    """Check hashes, counts, index, JSON and images of one shard; every problem is listed."""
    audit = ShardAudit()
    tar, index = manifest.root / shard.file, manifest.root / shard.index
    for path, digest in ((tar, shard.sha256), (index, shard.index_sha256)):
        if not path.exists():
            audit.problems.append(f"{path}: missing")
        elif file_digest(path) != digest:
            audit.problems.append(f"{path}: damaged: its sha256 is not the manifest's")
    if audit.problems and not (tar.exists() and index.exists()):
        return audit
    try:
        studies, images = _checked_index(tar, index, manifest, shard, audit)
    except (ShardError, ManifestError, ValueError) as error:
        audit.problems.append(str(error))
        return audit
    audit.patients = set(studies["patient"].tolist()) - {0}
    with tar.open("rb") as file:
        for row, study in enumerate(studies):
            members = images[images["study"] == row]
            _audit_study(file.fileno(), tar, study, members, (manifest, shard, audit))
    return audit


def _checked_index(
    tar: Path, index: Path, manifest: Manifest, shard: Shard, audit: ShardAudit
) -> tuple[Any, Any]:
    """The records that the tar itself gives, held against the index file and the manifest."""
    foreign = manifest.details.get("indexed")
    layout = Layout(image=foreign["image"]) if foreign else Layout()
    stored_studies, stored_images = read_index(index)
    known = {bytes(s["key"]): int(s["patient"]) for s in stored_studies}

    def patient_of(sample: Sample, body: dict[str, Any]) -> int:
        # of JSON that is malformed the index is believed: the study has its own line already
        return _hash_of(body) if body and not foreign else known.get(short_key(sample.key), 0)

    studies, images, _ = scan(tar, layout, patient_of, lenient=True)
    if not (np.array_equal(studies, stored_studies) and np.array_equal(images, stored_images)):
        audit.problems.append(f"{index}: damaged: not the index of {tar.name}")
    counted = {
        "patients": len(set(studies["patient"].tolist()) - {0}),
        "studies": len(studies),
        "images": len(images),
        "bytes": tar.stat().st_size,
    }
    for name, count in counted.items():
        if count != getattr(shard, name):
            stated = getattr(shard, name)
            audit.problems.append(f"{tar}: {count} {name}, the manifest says {stated}")
    return studies, images


def _audit_study(
    handle: int,
    tar: Path,
    study: np.void,
    members: Any,
    ledger: tuple[Manifest, Shard, ShardAudit],
) -> None:
    """One study: its JSON and gaze against the format, its images against their entries in it."""
    manifest, shard, audit = ledger
    where = f"{tar}: {study['key'].decode(errors='replace')}"
    body = _parsed(handle, study, "json", where, audit)
    _audit_gaze(handle, study, members, where, audit)
    entries: dict[tuple[int, str], dict[str, Any]] = {}
    if not manifest.details.get("indexed"):
        if not study["json_size"]:
            audit.problems.append(f"{where}: has no JSON member")
        elif body is not _DAMAGED:
            faults = faults_of(body, shard.split, manifest.labels)
            audit.problems += [f"{where}: {fault}" for fault in faults]
        if identifies(body):
            entries = {file_of(entry): entry for entry in body["images"]}
            if len(entries) != len(members):
                listed = f"its JSON lists {len(entries)}"
                audit.problems.append(f"{where}: {len(members)} images, {listed}")
    for member in members:
        name = f"{where} image {member['ordinal']}"
        try:
            data = os.pread(handle, int(member["size"]), int(member["offset"]))
            pixels = decode_image(data).pixels
        except UnreadableImageError as error:
            audit.problems.append(f"{name}: {error}")
            continue
        audit.images.append(_seen(name, shard.split, pixels, member, entries, audit))


def _audit_gaze(handle: int, study: np.void, members: Any, where: str, audit: ShardAudit) -> None:
    """The gaze of a study against the format."""
    body = _parsed(handle, study, "gaze", where, audit)
    if study["gaze_size"] and body is not _DAMAGED:
        faults, idle = faults_of_gaze(body, set(members["ordinal"].tolist()))
        audit.problems += [f"{where}: {fault}" for fault in faults]
        audit.idle += idle


def _parsed(handle: int, study: np.void, member: str, where: str, audit: ShardAudit) -> Any:
    """What a member says, _DAMAGED where that is no JSON, which is a problem, or no member is."""
    if not study[f"{member}_size"]:
        return _DAMAGED
    data = os.pread(handle, int(study[f"{member}_size"]), int(study[f"{member}_offset"]))
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        called = "JSON" if member == "json" else member
        audit.problems.append(f"{where}: its {called} is malformed: {error}")
        return _DAMAGED


def _seen(
    name: str,
    split: str,
    pixels: Pixels,
    member: np.void,
    entries: Mapping[tuple[int, str], Mapping[str, Any]],
    audit: ShardAudit,
) -> SeenImage:
    """What identifies an image; that of the source's pixels where the JSON keeps it."""
    if not entries:
        return SeenImage(name, split, digest_pixels(pixels), fingerprint(pixels))
    entry = entries.get((int(member["ordinal"]), member["suffix"].decode()))
    if entry is None:
        audit.problems.append(f"{name}: not in its JSON")
        return SeenImage(name, split, digest_pixels(pixels), fingerprint(pixels))
    if pixels.shape != (entry["height"], entry["width"]):
        stated = f"{entry['height']} x {entry['width']}"
        found = f"{pixels.shape[0]} x {pixels.shape[1]}"
        audit.problems.append(f"{name}: {found} pixels, its JSON says {stated}")
    spare = max(0, 8 * pixels.itemsize - entry["bits"])
    if pixels.dtype == np.uint16 and int(np.bitwise_or.reduce(pixels, None)) & ((1 << spare) - 1):
        audit.problems.append(
            f"{name}: its JSON says {entry['bits']} bits, its pixels use others than the upper ones"
        )
    return SeenImage(name, split, entry["pixels"], entry["fingerprint"])


def _hash_of(body: Mapping[str, Any]) -> int:
    try:
        return int(str(body.get("patient")), 16)
    except ValueError:
        return 0
