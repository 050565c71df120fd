"""Rehearsal of the mission's size: 700,000 radiographs in 700 shards, without having them.

    python -m benchmarks.scale_rehearsal OUT [--images 70000] [--pictures 2000] [--seen 50000]
        [--sets FOLDER] [--most 8]

Parts of synthetic radiographs, each with greys and noise of its own, are built into shards of 1,000
(`--images` of them); a set of 700 shards is made of links to their tars, with an index and patients
of its own, so that every one of 700,000 offsets is read and decoded for real. Sets of 7,000 and
70,000 shards are links alone, read up to where a process may have no more memory (`--most`, GiB).
What ranks read is simulated from the order. Each measurement is a process of its own; seconds are
of its CPU where not said otherwise. `--sets` keeps what was made. Writes
OUT/scale_rehearsal_<machine>_<date>.json and .md; exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scale_growth as growth
from benchmarks import scale_reading as reading
from benchmarks import scale_sets as sets
from benchmarks import scale_stream as stream
from benchmarks.loader_race import conclude
from benchmarks.report import Goal, Table
from lightning_rad.data.order import Order
from lightning_rad.manifest import Manifest, load_index

SHARDS = 700
TIMES = (1, 10, 100)
BYTES = 30_000
"""Of an image on disk, at most; with the build's own files."""

BUFFERS = "MALLOC_MMAP_THRESHOLD_"
"""Above so many bytes glibc maps a buffer of its own, and unmaps it when it is freed."""

Measured = tuple[list[Table], list[Goal]]


def main() -> None:
    given = asked()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.sets or Path(temporary)
        require_room(folder, given.images * BYTES)
        real, large = made(folder, given.images, given.pictures)
        parts = [
            of_growth(folder, large, given.most),
            of_starts(large),
            of_run(large, given.seen),
            of_reading(large),
        ]
        tables = [table for part in parts for table in part[0]]
        goals = [goal for part in parts for goal in part[1]]
        note = f"{len(real.shards)} shards on disk, {given.images} images, each read"
        tables[0].note = f"{note} {len(large.shards) // len(real.shards)} times. {tables[0].note}"
    conclude(given, "scale_rehearsal", "Scale rehearsal", tables, goals)


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=70_000, help="on disk, whole shards")
    parser.add_argument("--pictures", type=int, default=2000, help="radiographs to make parts of")
    parser.add_argument("--seen", type=int, default=50_000, help="images of the long run")
    parser.add_argument("--sets", type=Path, help="folder for the sets, which are kept in it")
    parser.add_argument("--most", type=float, default=8.0, help="GiB a process may have")
    given = parser.parse_args()
    if given.images % sets.PER_SHARD or SHARDS % (given.images // sets.PER_SHARD):
        parser.error(f"--images: {SHARDS} shards are no multiple of {given.images} images")
    return given


def require_room(folder: Path, wanted: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < wanted:
        sys.exit(f"{folder}: {free / 2**30:.1f} GiB are free, {wanted / 2**30:.1f} are wanted")


def made(folder: Path, images: int, pictures: int) -> tuple[Manifest, Manifest]:
    """The set on disk and the large one; what is there already is not made again."""
    if not (folder / "pictures").is_dir():
        sets.radiographs(folder / "pictures", pictures)
    real = sets.on_disk(folder / "pictures", folder / "real", images)
    large = folder / "large"
    if large.is_dir():
        shutil.rmtree(large)
    return real, sets.repeated(real, large, SHARDS // len(real.shards))


def of_growth(folder: Path, large: Manifest, most: float) -> Measured:
    found = {}
    for times in TIMES:
        with tempfile.TemporaryDirectory(dir=folder) as many:
            manifest = large if times == 1 else sets.linked(large, Path(many) / "set", times)
            found[times] = growth.alone(growth.measured, str(manifest.root), most)
        if "memory ended" in found[times]:
            order = growth.alone(growth.of_order, SHARDS * times, sets.PER_SHARD, most)
            found[times] |= order
    steps = list(found[TIMES[0]])
    columns = ["step", *(f"{SHARDS * t * sets.PER_SHARD:,} images" for t in TIMES)]
    rows = [
        {"step": name}
        | {c: told(found[t].get(name)) for c, t in zip(columns[1:], TIMES, strict=True)}
        for name in steps
    ]
    note = (
        f"One rank of one, {growth.GROUPS} groups, windows of {growth.WINDOW}, batches of "
        f"{growth.BATCH}, no pixels. CPU seconds; MiB held after the step (peak within it), beyond "
        f"the interpreter's. A process may have {most:g} GiB."
    )
    late = "order, 90 % of data epoch 7"
    ratio = found[TIMES[-1]][late]["cpu"] / found[1][late]["cpu"]
    start = sum(found[1][n]["cpu"] for n in ("manifest", "index", "units", "order and first batch"))
    goals = [
        Goal("start over 700,000 images, CPU", 1.0, start, most=True, unit="s"),
        Goal("resume in an order of 70,000,000 : of 700,000", 10.0, ratio, most=True),
    ]
    details = [{"times": times, **steps} for times, steps in found.items()]
    return [Table("A start as the set grows", columns, rows, note, details)], goals


def told(step: dict[str, float] | None) -> str:
    if not step:
        return "memory ended"
    return f"{step['cpu']:.3f} s, {step['held']:.0f} ({step['peak']:.0f}) MiB"


def of_starts(large: Manifest) -> Measured:
    rows, details = [], []
    for name, part, epoch in (("the start", 0.0, 0), ("90 % of data epoch 7", 0.9, 7)):
        steps = growth.alone(stream.first_batch, str(large.root), part, epoch)
        cpu, wall = (sum(s[clock] for s in steps.values()) for clock in ("cpu", "wall"))
        row = {n: f"{s['cpu']:.2f} s" for n, s in steps.items()}
        rows.append({"from": name, **row, "together": f"{cpu:.2f} s", "wall": f"{wall:.1f} s"})
        details.append({"from": name, **steps})
    note = f"CPU seconds, imports not counted; a batch of {stream.BATCH}, two views of 224."
    return [Table("To the first batch", list(rows[0]), rows, note, details)], []


def of_run(large: Manifest, images: int) -> Measured:
    run = growth.alone(stream.long_run, str(large.root), images)
    os.environ[BUFFERS] = "1048576"
    mapped = growth.alone(stream.long_run, str(large.root), images // 2)
    del os.environ[BUFFERS]
    return told_run(run, mapped)


def told_run(run: dict[str, Any], mapped: dict[str, Any]) -> Measured:
    """A run as it is, and one whose memory the C library gives back, so that a leak would show."""
    looks = run["looks"]
    held = {round(seen): f"{mib:.0f}" for seen, _, _, mib in mapped["looks"]}
    rows = [
        {
            "images": f"{seen:,.0f}",
            "images a CPU second": f"{seen / cpu:.0f}",
            "images a second": f"{seen / wall:.0f}",
            "MiB": f"{mib:.0f}",
            "MiB, buffers mapped": held.get(round(seen), ""),
        }
        for seen, wall, cpu, mib in looks[:: max(1, len(looks) // 12)]
    ]
    memory = np.array(mapped["looks"])[:, 3]
    early, late = (np.median(each) for each in np.array_split(memory, 2))
    waits = run["waits"]
    note = (
        f"Two views of 224 from JPEGs of {sets.SIDE} px ({run['bytes'] / 1000:.1f} kB), batches of "
        f"{stream.BATCH}, 2 threads; a data epoch ends in the middle. A batch was waited for "
        f"{statistics.median(waits):.2f} s (median) and {max(waits):.2f} s (longest), wall clock. "
        "A batch is 24.5 MiB, of which the C library keeps some more after a while; mapped: "
        f"another run, with {BUFFERS}=1048576, half as long."
    )
    goal = Goal("memory, second half : first half of a run", 1.02, float(late / early), most=True)
    return [Table("A long run", list(rows[0]), rows, note, [run, mapped])], [goal]


def of_reading(large: Manifest) -> Measured:
    index = load_index(large, large.shards)
    shard = index.shard_of_study[index.images["study"]]
    kept = (0.05, 0.1, 0.25, 0.5, 1.0)
    rows, goals = [], []
    for groups, ranks in ((8, 8), (64, 8), (64, 64), (512, 8), (512, 64), (512, 512)):
        order = Order(shard, seed=1, groups=groups, window=growth.WINDOW)
        alone = reading.fetched(order, shard, ranks).sum() / SHARDS
        visits = reading.visits_of_nodes(order, shard, ranks)
        open_at_once = statistics.mean(len(batch) for node in visits for batch in node)
        row = {"groups": str(groups), "ranks": str(ranks), "a cache a rank": f"{alone:.2f}"}
        for part in kept:
            count = sum(reading.misses(node, int(part * SHARDS)) for node in visits)
            row[f"a node keeps {part:.0%}"] = f"{count / SHARDS:.2f}"
        rows.append(row | {"shards in a node's part of a batch": f"{open_at_once:.0f}"})
        if ranks == groups == 64:
            goals = [Goal("whole shards fetched, 64 ranks", 1.1, float(alone), most=True)]
    size, offset = index.images["size"], index.images["offset"]
    tars = sum(s.bytes for s in large.shards)
    note = (
        "Times that a shard is fetched in data epoch 1, summed over ranks or over nodes of "
        f"{reading.NODE} ranks whose cache keeps that part of the set, least recently used out "
        f"first; batches of {reading.BATCH}. By ranges, whatever the ranks: "
        f"{size.sum() / tars:.3f} bytes of a byte of the tars, "
        f"{reading.pages(offset, size) / tars:.3f} in whole pages of {reading.PAGE}."
    )
    return [Table("What is read how often", list(rows[0]), rows, note)], goals


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
