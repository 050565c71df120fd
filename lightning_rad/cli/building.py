"""`lightning-rad shards build|merge`: a set of shards, in one go or by many tasks."""

from __future__ import annotations

from pathlib import Path

from lightning_rad import sharding
from lightning_rad.manifest import Manifest
from lightning_rad.sharding.builder import PartBuilt
from lightning_rad.sharding.part import parse_part


def build(
    recipe: Path,
    out: Path,
    *,
    root: Path | None = None,
    workers: int | None = None,
    salt_file: Path | None = None,
    part: str | None = None,
    overwrite: bool = False,
) -> Manifest | PartBuilt:
    """Build shards from a recipe. Run again after a crash, Ctrl-C or a loss, it continues.

    Args:
        recipe: The recipe, a YAML file; `shards/` has some.
        out: Folder of the shards, made where missing, or an s3:// or gs:// URL of one: then each
            shard is made on this machine's disk ($TMPDIR), uploaded and removed.
        root: Folder of the raw data that the recipe's paths are relative to.
        workers: Processes; default one a core. The shards do not depend on it.
        salt_file: File of the secret salt; default $LIGHTNING_RAD_SALT_FILE, else
            ~/.config/lightning_rad/salt, made at first use.
        part: I/N builds the share of task I of N that run at once; `shards merge OUT` then writes
            the manifest. The shards do not depend on N.
        overwrite: Replace whatever shards lie in `out`, also those of this very recipe.
    """
    given = {"root": root, "salt_file": salt_file}
    if part is None:
        return sharding.build(recipe, out, workers=workers, overwrite=overwrite, **given)
    if overwrite:
        raise ValueError(
            f"--overwrite with --part {part}: tasks would delete one another's shards; "
            f"remove {out} before they start"
        )
    return sharding.build_part(recipe, out, parse_part(part), workers=workers, **given)


def tell_part(built: PartBuilt) -> None:
    """One line on a part that is done."""
    told = f"{built.images} images in {built.shards} shards, {built.rejected} rejected"
    print(f"{built.place}: part {built.part}: {told}")  # noqa: T201
