"""Building shards from a recipe: plan, write, sum up; resumable at any moment."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_rad import __version__
from lightning_rad.manifest import Manifest, write_atomically
from lightning_rad.sharding.identity import Identity, load_salt
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.ledger import Ledger
from lightning_rad.sharding.plan import Job, Plan, make_plan
from lightning_rad.sharding.progress import Meter
from lightning_rad.sharding.recipe import Recipe, expand, load_recipe, make_source
from lightning_rad.sharding.summary import summarise
from lightning_rad.sharding.synthesis import Body, synthetic_recipe
from lightning_rad.sharding.workers import write_shards
from lightning_rad.sharding.write import Bench


def build(
    recipe: Path,
    out: Path,
    *,
    root: Path | None = None,
    workers: int | None = None,
    salt_file: Path | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Build shards from a recipe. Run again after a crash, Ctrl-C or a loss, it continues.

    Args:
        recipe: The recipe, a YAML file; `shards/` has some.
        out: Folder of the shards; made where missing.
        root: Folder of the raw data that the recipe's paths are relative to.
        workers: Processes; default one a core. The shards do not depend on it.
        salt_file: File of the secret salt; default $LIGHTNING_RAD_SALT_FILE, else
            ~/.config/lightning_rad/salt, made at first use.
        overwrite: Replace whatever shards lie in `out`, also those of this very recipe.

    Raises ValueError where the recipe, the source or the folder is at fault.
    """
    return build_recipe(
        load_recipe(recipe),
        out,
        root=root,
        workers=workers,
        salt_file=salt_file,
        overwrite=overwrite,
    )


def synthesize(
    out: Path,
    *,
    patients: int = 400,
    size: int = 128,
    seed: int = 0,
    images_per_shard: int = 100,
    body: Body = "chest",
    workers: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Build shards of synthetic radiographs, as shards/synthetic*.yaml do; needs no data.

    Args:
        out: Folder of the shards; made where missing.
        patients: Number of patients, some with several studies.
        size: Side of the images in pixels.
        seed: Another seed, other bodies.
        images_per_shard: Images a shard holds.
        body: Chests with seven findings, or knees with a grade of osteoarthritis, 0 to 4.
        workers: Processes; default one a core. The shards do not depend on it.
        overwrite: Replace whatever shards lie in `out`.
    """
    recipe = synthetic_recipe(patients, size, seed, images_per_shard, body)
    return build_recipe(recipe, out, workers=workers, overwrite=overwrite)


def build_recipe(
    recipe: Recipe,
    out: Path,
    *,
    root: Path | None = None,
    workers: int | None = None,
    salt_file: Path | None = None,
    overwrite: bool = False,
) -> Manifest:
    """`build` for a recipe that is already read."""
    identity = Identity(load_salt(recipe.salt, salt_file, apart_from=expand(out)), recipe.namespace)
    source = make_source(recipe.source, expand(root) if root is not None else None)
    plan = make_plan(source, recipe, identity)
    ledger = Ledger(expand(out))
    with ledger.held():
        bench = Bench(source, recipe, ledger.out, ledger.notes)
        workers = workers or len(os.sched_getaffinity(0))
        manifest = None if overwrite else ledger.finished(plan)
        if manifest is not None:
            _restore(manifest, plan, bench, ledger, workers)
        else:
            ledger.begin(plan, overwrite=overwrite)
            _save_rejected(ledger.out, rejected := [(r.where, r.reason) for r in plan.rejected])
            _check_rejected(recipe, len(rejected), sum(j.images for j in plan.jobs))
            records = _write(plan, bench, ledger, workers)
            manifest = _conclude(plan, recipe, identity, ledger, records)
        ledger.close()
    return manifest


def _write(plan: Plan, bench: Bench, ledger: Ledger, workers: int) -> list[ShardRecord]:
    """The records of all shards in the order of the plan, the missing ones written now."""
    records = {job.name: ledger.record_of(job) for job in plan.jobs}
    missing = [job for job in plan.jobs if records[job.name] is None]

    def keep(job: Job, record: ShardRecord) -> None:
        ledger.note(job, record)
        records[job.name] = record

    _work(missing, plan, bench, workers, keep)
    return [record for record in records.values() if record is not None]


def _restore(manifest: Manifest, plan: Plan, bench: Bench, ledger: Ledger, workers: int) -> None:
    """Write the files that a finished build has lost; the manifest holds for them as it is."""
    lost = ledger.lost(manifest)

    def compare(job: Job, record: ShardRecord) -> None:
        if record.shard != lost[job.name]:
            for file in (lost[job.name].file, lost[job.name].index):
                (ledger.out / file).unlink(missing_ok=True)
            raise ValueError(
                f"{ledger.out / lost[job.name].file}: lost, and its images are no longer those of "
                f"the manifest; pass --overwrite to build the whole set anew"
            )

    _work([job for job in plan.jobs if job.name in lost], plan, bench, workers, compare)


def _work(
    missing: Sequence[Job],
    plan: Plan,
    bench: Bench,
    workers: int,
    keep: Callable[[Job, ShardRecord], None],
) -> None:
    """Write shards under a progress line, each given to `keep` once its files are in place."""
    total, left = (sum(j.images for j in jobs) for jobs in (plan.jobs, missing))
    done = len(plan.jobs) - len(missing)
    try:
        with Meter(f"building {bench.recipe.name}", total, already=total - left) as meter:
            for job, record in write_shards(missing, bench, min(workers, len(missing)), meter.show):
                keep(job, record)
                done += 1
    except KeyboardInterrupt:
        sys.stderr.write(
            f"interrupted: {done} of {len(plan.jobs)} shards are complete; "
            f"run the same command again to continue\n"
        )
        raise SystemExit(130) from None


def _conclude(
    plan: Plan, recipe: Recipe, identity: Identity, ledger: Ledger, records: Sequence[ShardRecord]
) -> Manifest:
    """Write rejected.jsonl, weigh it, and only then the manifest."""
    rejected = [(r.where, r.reason) for r in plan.rejected]
    rejected += [line for record in records for line in record.rejected]
    _save_rejected(ledger.out, rejected)
    try:
        _check_rejected(recipe, len(rejected), sum(r.shard.images for r in records))
    except ValueError:
        for job, record in zip(plan.jobs, records, strict=True):
            if record.rejected:  # the user may mend these files and try again
                ledger.forget(job)
        raise
    details = {
        "namespace": recipe.namespace,
        "salt": identity.salt_id,
        "recipe": recipe.digest,
        "plan": plan.digest,
        "software": f"lightning-rad {__version__}",
        "image": asdict(recipe.image),
        "rejected": dict(sorted(Counter(reason.split(":")[0] for _, reason in rejected).items())),
        "url": recipe.url,
        "licence": recipe.licence,
        "citation": recipe.citation,
    }
    manifest = summarise(ledger.out, recipe.name, records, details, labels=recipe.labels)
    manifest.save()
    return manifest


def _save_rejected(out: Path, rejected: Sequence[tuple[str, str]]) -> None:
    lines = [json.dumps({"where": w, "reason": r}, sort_keys=True) + "\n" for w, r in rejected]
    write_atomically(out / "rejected.jsonl", "".join(lines).encode())


def _check_rejected(recipe: Recipe, rejected: int, images: int) -> None:
    if not images:
        raise ValueError(f"recipe '{recipe.name}': no image is left ({rejected} rejected)")
    fraction = rejected / (rejected + images)
    if fraction > recipe.max_rejected_fraction:
        raise ValueError(
            f"recipe '{recipe.name}': {rejected} rejected beside {images} images are "
            f"{fraction:.1%}, above max_rejected_fraction {recipe.max_rejected_fraction:.1%}; "
            f"rejected.jsonl in the output folder names each"
        )
