"""Building shards from a recipe: plan, write, sum up; resumable at any moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lightning_rad.manifest import Manifest
from lightning_rad.sharding.outline import check_refused, parse_outline
from lightning_rad.sharding.part import Part
from lightning_rad.sharding.recipe import Recipe, load_recipe
from lightning_rad.sharding.steps import (
    conclude,
    ledger_of,
    prepare,
    restore,
    save_rejected,
    write_missing,
)
from lightning_rad.sharding.synthesis import Body, synthetic_recipe


@dataclass(frozen=True, slots=True)
class PartBuilt:
    """What there is of a part: its share of the shards, all of them written."""

    place: str
    part: Part
    shards: int
    images: int
    rejected: int


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
        out: Folder of the shards, made where missing, or an s3:// or gs:// URL of one: then each
            shard is made on this machine's disk ($TMPDIR), uploaded and removed.
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
    ledger = ledger_of(out)
    plan, bench, outline = prepare(recipe, ledger, root, salt_file)
    workers = workers or len(os.sched_getaffinity(0))
    with ledger.held():
        manifest = None if overwrite else ledger.finished(plan)
        if manifest is not None:
            restore(manifest, plan.jobs, bench, ledger, workers)
        else:
            ledger.begin(plan, overwrite=overwrite)
            ledger.keep_outline(outline.dumps())
            save_rejected(ledger, list(outline.rejected))
            check_refused(outline, len(outline.rejected), sum(j.images for j in plan.jobs))
            manifest = conclude(outline, ledger, write_missing(plan.jobs, bench, ledger, workers))
        ledger.close()
    return manifest


def build_part(
    recipe: Path,
    out: Path,
    part: Part,
    *,
    root: Path | None = None,
    workers: int | None = None,
    salt_file: Path | None = None,
) -> PartBuilt:
    """Build one task's share of the shards that `build` makes; `merge` follows on all of them.

    Tasks may run at once, on any nodes that see the folder; the shards do not depend on how many
    there are. Arguments and errors are those of `build`.
    """
    ledger = ledger_of(out, part)
    plan, bench, outline = prepare(load_recipe(recipe), ledger, root, salt_file)
    jobs = part.share(plan.jobs)
    workers = workers or len(os.sched_getaffinity(0))
    with ledger.held():
        manifest = ledger.finished(plan)
        if manifest is not None:
            restore(manifest, jobs, bench, ledger, workers)
            mine = {job.name for job in jobs}
            shards = [s for s in manifest.shards if Path(s.file).stem in mine]
            return PartBuilt(str(ledger.out), part, len(shards), sum(s.images for s in shards), 0)
        ledger.begin(plan, overwrite=False)
        ledger.keep_outline(outline.dumps())
        records = write_missing(jobs, bench, ledger, workers)
    return PartBuilt(
        str(ledger.out),
        part,
        sum(record.shard.images > 0 for record in records),
        sum(record.shard.images for record in records),
        sum(len(record.rejected) for record in records),
    )


def merge(out: Path) -> Manifest:
    """Write the manifest of shards that were built in parts. Needs neither raw data nor salt.

    Args:
        out: Folder or URL that all parts were built into.

    Raises ValueError naming the shards that are missing.
    """
    ledger = ledger_of(out)
    with ledger.held():
        if (kept := ledger.outline()) is None:
            if (manifest := ledger.manifest()) is not None:
                return manifest
            raise ValueError(f"{ledger.out}: no build was begun here; run `shards build` first")
        outline = parse_outline(kept)
        records = ledger.records_of(outline.empty_jobs)
        missing = [name for name, record in records.items() if record is None]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(
                f"{ledger.out}: {len(missing)} of {len(records)} shards are not built yet "
                f"({some}); run the parts again, what is there is kept"
            )
        manifest = conclude(outline, ledger, [r for r in records.values() if r is not None])
        ledger.close()
    return manifest
