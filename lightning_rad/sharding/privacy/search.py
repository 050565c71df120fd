"""Searching finished shards for whatever identifies somebody in their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lightning_rad.manifest import Manifest, ManifestError, load_manifest
from lightning_rad.schema import IMAGE_SUFFIXES, SPLITS
from lightning_rad.sharding.privacy.codes import runs
from lightning_rad.sharding.privacy.needles import Needles
from lightning_rad.sharding.privacy.parts import parts_of
from lightning_rad.sharding.privacy.values import identifiers_of
from lightning_rad.sharding.recipe import expand, load_recipe, make_source
from lightning_rad.sharding.tar import ShardError
from lightning_rad.sharding.verification import Report

CODED: Final = 8
"""Letters and digits that a value must have to be looked for among bytes that are no text: with
fewer, the pixels of a large set would spell some by chance."""


def search(
    manifests: Sequence[Path],
    recipe: Path,
    *,
    root: Path | None = None,
    columns: Sequence[str] = (),
) -> Report:
    """Look in every byte of shards for every identifier of the source that a recipe names.

    A problem names the file and member, and the row of the source whose value it is; never the
    value. A note says how many values are too common to be looked for, and why.

    Args:
        manifests: Shard folders.
        recipe: The recipe that they were built with.
        root: Folder of the raw data, as for `build`.
        columns: Further columns of the recipe's table that hold identifiers.

    Raises ValueError where the recipe or the source is at fault.
    """
    settings = load_recipe(recipe)
    source = make_source(settings.source, expand(root) if root is not None else None)
    report = Report()
    opened: list[Manifest] = []
    for path in manifests:
        try:
            opened.append(load_manifest(path))
        except ManifestError as error:
            report.problems.append(str(error))
    vocabulary = [settings.name, settings.namespace, *SPLITS, *IMAGE_SUFFIXES]
    for manifest in opened:
        vocabulary += [*manifest.labels, *manifest.details.get("views", ())]
    needles = Needles(identifiers_of(source, columns), vocabulary)
    if not needles and not needles.common:
        raise ValueError(f"{recipe}: its source names no identifier to look for")
    for manifest in opened:
        _search_one(manifest, needles, report)
    report.notes.append(f"privacy: {len(needles)} identifiers of the source looked for")
    for reason, count in sorted(needles.common.items()):
        report.notes.append(f"privacy: {count} values not looked for: {reason}")
    return report


def _search_one(manifest: Manifest, needles: Needles, report: Report) -> None:
    first: dict[int, str] = {}
    places = Counter[int]()
    odd: dict[str, tuple[str, int]] = {}
    try:
        for part in parts_of(manifest):
            if part.odd:
                where, count = odd.get(part.odd, (part.where, 0))
                odd[part.odd] = (where, count + 1)
            hits = set(needles.find(part.text)) if part.text else set()
            for text in runs(part.code, CODED):
                hits |= set(needles.find(text, least=CODED))
            if hits:
                where = part.at if set(needles.find(part.where)) else part.where
                for number in hits:
                    first.setdefault(number, where)
                    places[number] += 1
    except (ShardError, ManifestError, OSError) as error:
        report.problems.append(str(error))
    for number, where in first.items():
        needle, more = needles.needles[number], places[number] - 1
        others = f", and in {more} other places" if more else ""
        report.problems.append(
            f"privacy: {where}{others}: holds the {needle.kind} of {needle.where}"
        )
    for what, (where, count) in odd.items():
        others = f", and {count - 1} other images" if count > 1 else ""
        report.problems.append(f"privacy: {where}{others}: {what}")
