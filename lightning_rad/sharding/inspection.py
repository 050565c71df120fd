"""Looking at shards: a table of what they hold, and a contact sheet of some images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_rad.manifest import Index, Manifest, image_entry, load_index, load_manifest
from lightning_rad.modalities.gaze import inside, unpacked
from lightning_rad.modalities.radiograph import decode_image
from lightning_rad.schema import SPLITS
from lightning_rad.sharding.sheet import COLOURS, Tile, write_sheet


def inspect(
    manifest: Path,
    *,
    sheet: Path | None = None,
    split: str | None = None,
    images: int = 24,
    console: Console | None = None,
) -> Manifest:
    """Print what shards hold, and draw some of their images on a contact sheet.

    Over the images: boxes, fixations as circles whose areas are as their durations, and where a
    predicted map is at least half as high as at its peak.

    Args:
        manifest: The manifest or its folder.
        sheet: PNG file for the contact sheet; default none.
        split: Split that the sheet shows; default the first there is.
        images: Number of images on the sheet, spread evenly over the split.
        console: Where the table is printed; default the terminal.

    Raises ValueError, naming shard and key, for what cannot be drawn.
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
        drawn = {
            "boxes": any(tile.boxes for tile in tiles),
            "fixations": any(len(tile.fixations) for tile in tiles),
            "maps at half their peak": any(tile.map is not None for tile in tiles),
        }
        key = "".join(f", {what} {COLOURS[what]}" for what, there in drawn.items() if there)
        screen.print(f"{len(tiles)} images drawn on {sheet}{key}", highlight=False)
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
    """Images of a split at even distances, each with its caption, boxes and gaze."""
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
        image = file.read(int(record["size"]))
        file.seek(int(study["json_offset"]))
        said = file.read(int(study["json_size"])) or b"{}"
        file.seek(int(study["gaze_offset"]))
        looks = file.read(int(study["gaze_size"])) or b"{}"
    try:
        return _drawn(image, json.loads(said), json.loads(looks), int(record["ordinal"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: {study['key'].decode(errors='replace')}: cannot be drawn: {error} "
            "(`shards verify` lists all that is damaged)"
        ) from None


def _drawn(image: bytes, body: Any, looks: Any, ordinal: int) -> Tile:
    """The tile of what a shard holds of an image. Raises whatever it is that cannot be drawn."""
    entry = image_entry(body, ordinal)
    present = [finding for finding, value in (entry.get("labels") or {}).items() if value == 1]
    boxes = [{side: float(box[side]) for side in "xywh"} for box in entry.get("boxes") or []]
    own = [rows for key, rows in looks.items() if key.isdecimal() and int(key) == ordinal]
    return Tile(
        decode_image(image).pixels,
        " ".join([str(entry.get("view", "")), ", ".join(present) or "-"]),
        boxes,
        inside([row for rows in own for row in rows]).tolist(),
        None if entry.get("saliency") is None else unpacked(entry["saliency"]),
    )


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
