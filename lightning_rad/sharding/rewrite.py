"""A set of shards written once more: same keys, order and splits, its studies changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lightning_rad import __version__
from lightning_rad.manifest import Manifest, load_manifest, write_atomically
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.ledger import Ledger
from lightning_rad.sharding.plan import Job, Plan
from lightning_rad.sharding.progress import Meter
from lightning_rad.sharding.recipe import expand
from lightning_rad.sharding.rewritten_shard import Change, rewrite_shard

OPTIONAL: Final = "saliency"
"""The member of records that a change may add or take away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """What is changed.

    name: what the manifest's details call it. details: what the change depends on, as JSON values;
    only the same details continue an interrupted run. left: what the details call the number of
    images that the change could not do. batch: images changed at a time, more by a study at most.
    foreign: whether shards of other software, made readable by `shards index`, can be changed.
    """

    name: str
    details: Mapping[str, Any]
    left: str
    change: Change
    batch: int
    foreign: bool = False


def rewrite(shards: Path, out: Path, how: Rewriting, *, overwrite: bool) -> Manifest:
    """Write shards anew, each study as the change leaves it.

    Run again after a crash it continues: a shard is there whole or not at all, and those that are
    there are kept. overwrite: replace whatever shards lie in `out`. Raises ValueError where the
    shards are not those of their manifest, or the folder is at fault.
    """
    source, out = load_manifest(expand(shards)), expand(out)
    _require(source, out, how)
    plan = _plan(source, how.details)
    ledger = Ledger(out)
    with ledger.held():
        manifest = None if overwrite else ledger.finished(plan)
        if manifest is None:
            ledger.begin(plan, overwrite=overwrite)
            records = _write(source, plan, ledger, how)
            manifest = _conclude(source, plan, records, how, out)
        elif lost := ledger.lost(manifest):
            raise ValueError(
                f"{out}: {min(lost)}.tar or its index is lost; pass --overwrite to write the whole "
                "set anew"
            )
        ledger.close()
    return manifest


def _require(source: Manifest, out: Path, how: Rewriting) -> None:
    if out.resolve() == source.root.resolve():
        raise ValueError(f"{out} is the folder that is read; choose another one")
    if source.root.resolve() in out.resolve().parents:
        raise ValueError(f"{out} lies in {source.root}, which is read; choose a folder outside")
    if source.details.get("indexed") and not how.foreign:
        raise ValueError(
            f"{source.root}: shards of other software, whose records are none of ours; make them "
            "with `shards build`"
        )


def _plan(source: Manifest, details: Mapping[str, Any]) -> Plan:
    """The shards as jobs, of which a ledger asks the names alone, and the identity of it all."""
    said = json.dumps([source.digest, dict(details)], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    jobs = tuple(Job(Path(shard.file).stem, shard.split, ()) for shard in source.shards)
    return Plan(jobs, (), digest)


def _write(source: Manifest, plan: Plan, ledger: Ledger, how: Rewriting) -> list[ShardRecord]:
    """The records of all shards in their order, the missing ones written now."""
    records = {job: ledger.record_of(job) for job in plan.jobs}
    total = sum(shard.images for shard in source.shards)
    already = sum(record.shard.images for record in records.values() if record is not None)
    with Meter(f"{source.name}, {how.name}", total, already=already) as meter:
        done = 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            meter.show(done)

        for job, shard in zip(plan.jobs, source.shards, strict=True):
            if records[job] is None:
                records[job] = record = rewrite_shard(
                    source,
                    shard,
                    ledger.out,
                    ledger.notes,
                    how.change,
                    batch=how.batch,
                    count=count,
                )
                ledger.note(job, record)
    return [record for record in records.values() if record is not None]


def _conclude(
    source: Manifest, plan: Plan, records: Sequence[ShardRecord], how: Rewriting, out: Path
) -> Manifest:
    """The manifest of before, over the new shards; written last."""
    if (refused := source.root / "rejected.jsonl").exists():  # the details count its lines
        write_atomically(out / refused.name, refused.read_bytes())
    there = {field for record in records for field in record.fields}
    kept = tuple(field for field in source.fields if field != OPTIONAL)
    left = sum(len(record.rejected) for record in records)
    changed = {
        "plan": plan.digest,
        "software": f"lightning-rad {__version__}",
        how.name: dict(how.details) | {"from": source.digest, how.left: left},
    }
    manifest = replace(
        source,
        root=out,
        fields=kept + ((OPTIONAL,) if OPTIONAL in there else ()),
        shards=tuple(record.shard for record in records),
        details=source.details | changed,
    )
    manifest.save()
    return manifest
