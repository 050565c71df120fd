"""What building in one go, in parts and merging have in common."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from lightning_rad.manifest import Manifest
from lightning_rad.sharding.guard import review_lines
from lightning_rad.sharding.identity import Identity, load_salt
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.ledger import Ledger
from lightning_rad.sharding.outline import (
    Lines,
    Outline,
    check_refused,
    manifest_of,
    outline_of,
    refused,
)
from lightning_rad.sharding.part import Part
from lightning_rad.sharding.plan import Job, Plan, make_plan
from lightning_rad.sharding.progress import Meter
from lightning_rad.sharding.recipe import Recipe, expand, make_source
from lightning_rad.sharding.store_ledger import StoreLedger
from lightning_rad.sharding.workers import write_shards
from lightning_rad.sharding.write import Bench
from lightning_rad.storage.urls import url_of

Books: TypeAlias = Ledger | StoreLedger


def ledger_of(out: Path, part: Part | None = None) -> Books:
    """The books of a folder or of a URL."""
    url = url_of(out)
    return Ledger(expand(out), part) if url is None else StoreLedger(url, part)


def prepare(
    recipe: Recipe, ledger: Books, root: Path | None, salt_file: Path | None
) -> tuple[Plan, Bench, Outline]:
    """All that is decided before anything is written."""
    apart_from = ledger.out if isinstance(ledger.out, Path) else None
    identity = Identity(load_salt(recipe.salt, salt_file, apart_from=apart_from), recipe.namespace)
    source = make_source(recipe.source, expand(root) if root is not None else None)
    plan = make_plan(source, recipe, identity)
    bench = Bench(source, recipe, ledger.out, ledger.workshop)
    return plan, bench, outline_of(plan, recipe, identity)


def write_missing(
    jobs: Sequence[Job], bench: Bench, ledger: Books, workers: int
) -> list[ShardRecord]:
    """The records of some shards in their order, the missing ones written now."""
    records = ledger.records_of(jobs)

    def keep(job: Job, record: ShardRecord) -> None:
        ledger.note(job, record)
        records[job.name] = record

    missing = [job for job in jobs if records[job.name] is None]
    _work(missing, jobs, bench, workers, keep)
    return [record for record in records.values() if record is not None]


def restore(
    manifest: Manifest, jobs: Sequence[Job], bench: Bench, ledger: Books, workers: int
) -> None:
    """Write the files that a finished build has lost; the manifest holds for them as it is."""
    lost = ledger.lost(manifest)

    def compare(job: Job, record: ShardRecord) -> None:
        if record.shard != lost[job.name]:
            ledger.discard(lost[job.name])
            raise ValueError(
                f"{ledger.out}/{lost[job.name].file}: lost, and its images are no longer those of "
                f"the manifest; pass --overwrite to build the whole set anew"
            )

    _work([job for job in jobs if job.name in lost], jobs, bench, workers, compare)


def _work(
    missing: Sequence[Job],
    jobs: Sequence[Job],
    bench: Bench,
    workers: int,
    keep: Callable[[Job, ShardRecord], None],
) -> None:
    """Write shards under a progress line, each given to `keep` once its files are in place."""
    total, left = (sum(j.images for j in some) for some in (jobs, missing))
    done = len(jobs) - len(missing)
    try:
        with Meter(f"building {bench.recipe.name}", total, already=total - left) as meter:
            for job, record in write_shards(missing, bench, min(workers, len(missing)), meter.show):
                keep(job, record)
                done += 1
    except KeyboardInterrupt:
        sys.stderr.write(
            f"interrupted: {done} of {len(jobs)} shards are complete; "
            f"run the same command again to continue\n"
        )
        raise SystemExit(130) from None


def conclude(outline: Outline, ledger: Books, records: Sequence[ShardRecord]) -> Manifest:
    """Write rejected.jsonl, weigh it, and only then the manifest."""
    rejected = refused(outline, records)
    save_rejected(ledger, rejected)
    try:
        check_refused(outline, len(rejected), sum(r.shard.images for r in records))
    except ValueError:
        for job, record in zip(outline.empty_jobs, records, strict=True):
            if record.rejected:  # the user may mend these files and try again
                ledger.forget(job)
        raise
    review = review_lines(outline.privacy, records)
    if review is not None:
        ledger.write("review.jsonl", review)
    root = ledger.out if isinstance(ledger.out, Path) else Path(os.devnull)
    return ledger.conclude(manifest_of(outline, root, records))


def save_rejected(ledger: Books, rejected: Lines) -> None:
    """Write rejected.jsonl, a line for each thing refused."""
    lines = [json.dumps({"where": w, "reason": r}, sort_keys=True) + "\n" for w, r in rejected]
    ledger.write("rejected.jsonl", "".join(lines).encode())
