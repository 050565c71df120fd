"""`lightning-rad shards build|merge|verify|inspect|index|synthesize|annotate|cache`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lightning_rad import sharding
from lightning_rad.cli.annotate import annotate
from lightning_rad.cli.building import build, tell_part
from lightning_rad.cli.cache import cache
from lightning_rad.sharding.builder import PartBuilt


def verify(
    manifests: list[Path],
    *,
    workers: int | None = None,
    privacy: Path | None = None,
    root: Path | None = None,
    columns: list[str] | None = None,
) -> None:
    """Re-read shards in full and look for patients and pictures that cross a split.

    Records, boxes, fixations and predicted maps are checked too. Prints every problem and ends with
    exit status 1 if there is one. Over several manifests a picture in a train split of one and in a
    val or test split of another is a problem.

    Args:
        manifests: Shard folders that are to be used together: ["nih", "rsna"].
        workers: Threads; default one a core.
        privacy: The recipe that the shards were built with: every byte of them is searched for the
            patients, studies, file names and DICOM identifiers of its source.
        root: With privacy, the folder of the raw data.
        columns: With privacy, further columns of the table that hold identifiers.
    """
    if privacy is None and (root is not None or columns):
        raise ValueError("--root and --columns belong to --privacy RECIPE")
    report = sharding.verify(manifests, workers=workers)
    if privacy is not None:
        sought = sharding.search(manifests, privacy, root=root, columns=columns or ())
        report.notes += sought.notes
        report.problems += [p for p in sought.problems if p not in report.problems]
    for line in (*(f"note: {note}" for note in report.notes), *report.problems):
        print(line)  # noqa: T201
    print(f"{report.images} images read, {len(report.problems)} problems")  # noqa: T201
    if not report.ok:
        sys.exit(1)


SHARDS: dict[str, Callable[..., Any]] = {
    "build": build,
    "merge": sharding.merge,
    "verify": verify,
    "inspect": sharding.inspect,
    "index": sharding.index,
    "synthesize": sharding.synthesize,
    "annotate": annotate,
    "cache": cache,
}
_MAKE = ("build", "merge", "index", "synthesize")


def shards(arguments: list[str]) -> None:
    """`lightning-rad shards COMMAND ...`: options are the parameters of the functions above."""
    parser = ArgumentParser(prog="lightning-rad shards", description="Make and check shards.")
    commands = parser.add_subcommands()
    for name, function in SHARDS.items():
        about = (function.__doc__ or "").split("\n\n")[0]
        command = ArgumentParser(description=about)
        if function is verify:  # the only one that takes any number of positional arguments
            command.add_argument("manifests", nargs="+", type=Path, help="shard folders")
        skip: set[str | int] = {"manifests", "console"}
        if function is annotate:  # needed, and yet by name
            about_gaze = "checkpoint of a GazePredictor, or a folder of them: the newest"
            command.add_argument("--gaze", type=Path, required=True, help=about_gaze)
            skip.add("gaze")
        command.add_function_arguments(function, as_positional=True, skip=skip)
        commands.add_subcommand(name, command, help=about)
    chosen = parser.instantiate(parser.parse_args(arguments))
    made = SHARDS[chosen.subcommand](**chosen[chosen.subcommand])
    if isinstance(made, PartBuilt):
        tell_part(made)
    elif chosen.subcommand in _MAKE:
        images = sum(shard.images for shard in made.shards)
        rejected: dict[str, int] = made.details.get("rejected", {})
        what = ", ".join(f"{why} {count}" for why, count in rejected.items())
        aside = f"{sum(rejected.values())} rejected ({what}): rejected.jsonl"
        end = aside if what else "none rejected"
        print(f"{made.folder}: {images} images in {len(made.shards)} shards, {end}")  # noqa: T201
    elif chosen.subcommand == "annotate":
        images = sum(shard.images for shard in made.shards)
        without = made.details["annotated"]["without_map"]
        print(f"{made.root}: {images} images, {without} of them without a map")  # noqa: T201
    elif chosen.subcommand == "cache":
        images = sum(shard.images for shard in made.shards)
        size = sum(shard.bytes for shard in made.shards) / 1e9
        left = made.details["cached"]["undecoded"]
        told = f"{images} images, {size:.2f} GB, {left} of them not readable and kept as they were"
        print(f"{made.root}: {told}")  # noqa: T201
