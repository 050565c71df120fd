"""Making the shards of others readable: an index beside each tar, and a manifest over all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_rad import __version__
from lightning_rad.manifest import Manifest, load_manifest
from lightning_rad.schema import SPLITS
from lightning_rad.sharding.identity import Identity, load_salt
from lightning_rad.sharding.indexing import (
    IMAGE_SUFFIX,
    Layout,
    PatientOf,
    Sample,
    ShardRecord,
    index_shard,
)
from lightning_rad.sharding.recipe import expand
from lightning_rad.sharding.summary import summarise


def index(
    shards: Path,
    *,
    out: Path | None = None,
    name: str = "",
    split: str = "train",
    image: str = IMAGE_SUFFIX,
    patient_pattern: str | None = None,
    patient_field: str | None = None,
    salt_file: Path | None = None,
) -> Manifest:
    """Index webdataset shards that other software wrote, and write a manifest for them.

    The tars stay as they are. Without `patient_pattern` and `patient_field` the patients are
    unknown, unless the JSON members are those of `shards build`.

    Args:
        shards: Folder of the tar files.
        out: Folder of the indexes and the manifest; default beside the tars.
        name: Name of the set, and namespace of its patients; default the folder's name.
        split: Split of the tars whose names do not begin with train, val or test.
        image: Regular expression that the whole suffix of an image member matches.
        patient_pattern: Regular expression searched in each key; its first group is the patient.
        patient_field: Key of each sample's JSON that holds the patient; dots lead deeper.
        salt_file: File of the secret salt that patients are hashed with; default as for `build`.

    Raises ShardError (a ValueError) naming file and offset of what cannot be read.
    """
    folder, target = expand(shards), expand(out or shards)
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise ValueError(f"{folder}: no *.tar file in this folder")
    if split not in SPLITS:
        raise ValueError(f"split '{split}'; accepted are {', '.join(SPLITS)}")
    _refuse_built(target)
    name = name or folder.resolve().name
    find = _finder(patient_pattern, patient_field)
    identity = Identity(load_salt(None, salt_file, apart_from=target), name) if find else None
    patient_of = _patient_reader(find, identity)
    target.mkdir(parents=True, exist_ok=True)
    layout = Layout(image=image)
    records = [
        _index_one(tar, target, _split_of(tar.name, split), layout, patient_of) for tar in tars
    ]
    if not any(record.shard.images for record in records):
        raise ValueError(f"{folder}: no member's suffix matches image '{image}'")
    details: dict[str, Any] = {
        "namespace": name,
        "salt": identity.salt_id if identity else None,
        "software": f"lightning-rad {__version__}",
        "indexed": {"image": image},
        "skipped_samples": sum(r.skipped for r in records),
        "ignored_members": sum(r.ignored for r in records),
    }
    manifest = summarise(target, name, records, details)
    manifest.save()
    return manifest


def _refuse_built(target: Path) -> None:
    """A manifest of `shards build` knows more than an index of its tars can tell."""
    path = target / "manifest.json"
    if path.exists() and not load_manifest(path).details.get("indexed"):
        raise ValueError(
            f"{path}: was written by `shards build`; to replace lost files run that again, "
            f"to index its tars anew give another folder as --out"
        )


def _index_one(
    tar: Path, target: Path, split: str, layout: Layout, patient_of: PatientOf
) -> ShardRecord:
    index_file = target / f"{tar.stem}.idx"
    part = index_file.with_name(index_file.name + ".part")
    shard_file = os.path.relpath(tar, target)
    record = index_shard(
        tar,
        part,
        shard_file=shard_file,
        index_file=index_file.name,
        split=split,
        layout=layout,
        patient_of=patient_of,
    )
    part.replace(index_file)
    return record


def _split_of(file: str, default: str) -> str:
    return next((s for s in SPLITS if re.match(rf"{s}[-_.]", file)), default)


Finder = Callable[[str, dict[str, Any]], str | None]
"""(key, JSON) -> the patient as the shards spell it, None where they do not say."""


def _patient_reader(find: Finder | None, identity: Identity | None) -> PatientOf:
    """How the hash of a sample's patient is found."""
    if find is None or identity is None:
        return lambda _, metadata: _own_hash(metadata)

    def patient_of(sample: Sample, metadata: dict[str, Any]) -> int:
        identifier = find(sample.key, metadata)
        return int(identity.patient(identifier), 16) if identifier else 0

    return patient_of


def _own_hash(metadata: dict[str, Any]) -> int:
    value = metadata.get("patient")
    return int(value, 16) if isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) else 0


def _finder(pattern: str | None, field: str | None) -> Finder | None:
    """How a sample's patient is found; None where neither way is given."""
    if pattern is not None and field is not None:
        raise ValueError("give patient_pattern or patient_field, not both")
    if pattern is None and field is None:
        return None
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"patient_pattern '{pattern}': {error}") from None
        if compiled.groups < 1:
            raise ValueError(f"patient_pattern '{pattern}': put the patient in (brackets)")
        return lambda key, _: match[1] if (match := compiled.search(key)) else None

    def from_field(_: str, metadata: dict[str, Any]) -> str | None:
        value: Any = metadata
        for step in (field or "").split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return None if value is None else str(value)

    return from_field
