"""Looking at shards: a table of what they hold, and a contact sheet of some images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_rad.manifest import Index, Manifest, image_entry, load_index, load_manifest
from lightning_rad.modalities.radiograph import decode_image
from lightning_rad.schema import SPLITS
from lightning_rad.sharding.sheet import Tile, write_sheet


def inspect(
    manifest: Path,
    *,
    sheet: Path | None = None,
    split: str | None = None,
    images: int = 24,
    console: Console | None = None,
) -> Manifest:
    """Print what shards hold, and draw some of their images on a contact sheet.

    Args:
        manifest: The manifest or its folder.
        sheet: PNG file for the contact sheet; default none.
        split: Split that the sheet shows; default the first there is.
        images: Number of images on the sheet, spread evenly over the split.
        console: Where the table is printed; default the terminal.
    """
    held = load_manifest(manifest)
    screen = console or Console()
    screen.print(splits_table(held))
    if held.labels:
        screen.print(findings_table(held))
    screen.print(_remarks(held), highlight=False)
    if sheet is not None:
        present = [s for s in SPLITS if any(shard.split == s for shard in held.shards)]
        tiles = list(pick_tiles(held, split or present[0], images))
        write_sheet(sheet, tiles)
        screen.print(f"{len(tiles)} images drawn on {sheet}", highlight=False)
    return held


def splits_table(manifest: Manifest) -> Table:
    """One row a split: shards, patients, studies, images, megabytes."""
    table = Table(title=f"{manifest.name}  {manifest.digest}")
    table.add_column("split")
    names = ("shards", "patients", "studies", "images", "MB")
    for name in names:
        table.add_column(name, justify="right")
    for split in SPLITS:
        shards = [s for s in manifest.shards if s.split == split]
        if shards:
            totals = Counter(shards=len(shards))
            for shard in shards:
                totals.update(patients=shard.patients, studies=shard.studies, images=shard.images)
            megabytes = sum(s.bytes for s in shards) / 1e6
            table.add_row(split, *(f"{totals[n]:,}" for n in names[:-1]), f"{megabytes:,.1f}")
    return table


def findings_table(manifest: Manifest) -> Table:
    """One row a finding: per split the images with it, their share of the known, the unknown."""
    table = Table(title="images with a finding (share of those known; unknown)")
    table.add_column("finding")
    splits = [s for s in SPLITS if s in manifest.prevalence]
    for split in splits:
        table.add_column(split, justify="right")
    for finding in manifest.labels:
        cells = (_prevalence(manifest.prevalence[split][finding]) for split in splits)
        table.add_row(finding, *cells)
    return table


def pick_tiles(manifest: Manifest, split: str, images: int) -> Iterator[Tile]:
    """Images of a split at even distances, each with its caption and boxes."""
    index = load_index(manifest, manifest.of_split(split))
    total = len(index.images)
    for row in sorted({place * total // images for place in range(images)}):
        yield _tile(index, row)


def _tile(index: Index, row: int) -> Tile:
    record = index.images[row]
    study = index.studies[record["study"]]
    path = index.files[index.shard_of_study[record["study"]]]
    with path.open("rb") as file:
        file.seek(int(record["offset"]))
        pixels = decode_image(file.read(int(record["size"])))
        file.seek(int(study["json_offset"]))
        body = json.loads(file.read(int(study["json_size"])) or b"{}")
    entry = image_entry(body, int(record["ordinal"]))
    present = [finding for finding, value in (entry.get("labels") or {}).items() if value == 1]
    caption = " ".join([str(entry.get("view", "")), ", ".join(present) or "-"])
    return Tile(pixels, caption, entry.get("boxes", []))


def _prevalence(counts: dict[str, int]) -> str:
    known = counts["present"] + counts["absent"]
    share = f"{counts['present'] / known:.1%}" if known else "-"
    return f"{counts['present']:,} ({share}; {counts['unknown']:,})"


def _remarks(manifest: Manifest) -> str:
    details = manifest.details
    views = details.get("views") or {}
    rejected = details.get("rejected") or {}
    lines = [
        "views: " + (", ".join(f"{v or 'unknown'} {n:,}" for v, n in views.items()) or "-"),
        "also in it: " + (", ".join(manifest.fields) or "-"),
        "rejected: " + (", ".join(f"{reason} {n:,}" for reason, n in rejected.items()) or "none"),
        f"recipe {details.get('recipe', '-')}, made by {details.get('software', 'others')}",
    ]
    return "\n".join(lines)
