"""Shards once more, with a predicted map of attention in the record of each image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_rad import __version__
from lightning_rad.manifest import Manifest, load_manifest, write_atomically
from lightning_rad.sharding.annotated_shard import FIELD, Predict, annotate_shard
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.ledger import Ledger
from lightning_rad.sharding.plan import Job, Plan
from lightning_rad.sharding.progress import Meter
from lightning_rad.sharding.recipe import expand


def annotate(
    shards: Path,
    out: Path,
    predict: Predict,
    *,
    details: Mapping[str, Any],
    batch: int = 64,
    overwrite: bool = False,
) -> Manifest:
    """Write shards anew, each image's record with the map that `predict` makes of it.

    Every other member, the order, keys and splits stay as they are; the `saliency` that a record
    had is replaced. Of shards of other software that `shards index` made readable, a record gains a
    list `images` where it has none, and a sample without a record gets one. Run again after a crash
    it continues: a shard is there whole or not at all, and those that are there are kept. An image
    that cannot be decoded gets no map and is counted.

    Args:
        shards: Folder with a manifest, of `shards build` or `shards index`.
        out: Folder of the new shards; made where missing.
        predict: Makes the maps.
        details: What the maps depend on, as JSON values: the checkpoint's identity and all else.
            Kept in the manifest; only the same details continue an interrupted run.
        batch: Images that are predicted at a time, more by a study at most.
        overwrite: Replace whatever shards lie in `out`.

    Raises ValueError where the shards are not those of their manifest, a record has no place for
    maps, or the folder is at fault: it must not be, nor lie in, the one that is read.
    """
    source, out = load_manifest(expand(shards)), expand(out)
    _require(source, out, batch)
    plan = _plan(source, details)
    ledger = Ledger(out)
    with ledger.held():
        manifest = None if overwrite else ledger.finished(plan)
        if manifest is None:
            ledger.begin(plan, overwrite=overwrite)
            records = _write(source, plan, ledger, predict, batch)
            manifest = _conclude(source, plan, records, details, out)
        elif lost := ledger.lost(manifest):
            raise ValueError(
                f"{out}: {min(lost)}.tar or its index is lost; pass --overwrite to write the whole "
                "set anew"
            )
        ledger.close()
    return manifest


def _require(source: Manifest, out: Path, batch: int) -> None:
    if batch < 1:
        raise ValueError(f"annotate.batch: {batch} is not at least 1")
    if out.resolve() == source.root.resolve():
        raise ValueError(f"{out} is the folder that is read; choose another one")
    if source.root.resolve() in out.resolve().parents:
        raise ValueError(f"{out} lies in {source.root}, which is read; choose a folder outside")


def _plan(source: Manifest, details: Mapping[str, Any]) -> Plan:
    """The shards as jobs, of which a ledger asks the names alone, and the identity of it all."""
    said = json.dumps([source.digest, dict(details)], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    jobs = tuple(Job(Path(shard.file).stem, shard.split, ()) for shard in source.shards)
    return Plan(jobs, (), digest)


def _write(
    source: Manifest, plan: Plan, ledger: Ledger, predict: Predict, batch: int
) -> list[ShardRecord]:
    """The records of all shards in their order, the missing ones written now."""
    records = {job: ledger.record_of(job) for job in plan.jobs}
    total = sum(shard.images for shard in source.shards)
    already = sum(record.shard.images for record in records.values() if record is not None)
    with Meter(f"annotating {source.name}", total, already=already) as meter:
        done = 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            meter.show(done)

        for job, shard in zip(plan.jobs, source.shards, strict=True):
            if records[job] is None:
                records[job] = record = annotate_shard(
                    source, shard, ledger.out, ledger.notes, predict, batch=batch, count=count
                )
                ledger.note(job, record)
    return [record for record in records.values() if record is not None]


def _conclude(
    source: Manifest,
    plan: Plan,
    records: Sequence[ShardRecord],
    details: Mapping[str, Any],
    out: Path,
) -> Manifest:
    """The manifest of before, over the new shards; written last."""
    if (refused := source.root / "rejected.jsonl").exists():  # the details count its lines
        write_atomically(out / refused.name, refused.read_bytes())
    there = {field for record in records for field in record.fields}
    kept = tuple(field for field in source.fields if field != FIELD)
    without = sum(len(record.rejected) for record in records)
    changed = {
        "plan": plan.digest,
        "software": f"lightning-rad {__version__}",
        "annotated": dict(details) | {"from": source.digest, "without_map": without},
    }
    manifest = replace(
        source,
        root=out,
        fields=kept + ((FIELD,) if FIELD in there else ()),
        shards=tuple(record.shard for record in records),
        details=source.details | changed,
    )
    manifest.save()
    return manifest
