"""Two views of each picture, by our loader and by others: pictures a second.

    python -m benchmarks.loaders OUT [--pace 1]

Contenders take turns over the same pictures of 512 and 320 pixels (JPEG, quality 90), out of the
page cache; one that is not installed is left out by name. What each decodes and crops is compared
first. With one worker seconds are of this process on the CPU, with two they are the wall clock's,
from the first batch to the last. Our raw tier is made of the shards of 512 pixels and compared
with others reading those. Writes OUT/loaders_<machine>_<date>.json and .md; exits with 1 where a
target is missed.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from benchmarks import loader_sets, loader_ways
from benchmarks.loader_crops import crops_table
from benchmarks.loader_race import asked, conclude
from benchmarks.loader_sets import Made, attempt
from benchmarks.loader_ways import BATCH, Batches, Twice, Ways
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from benchmarks.ways import told

IMAGES = 256
SIDES = (512, 320)
RAW = (256, 320)
SECONDS = 90.0
GREYS = 3.0
"""How far the mean grey of a loader's views may be from that of webdataset's, in levels of 255."""
COLUMNS = ["way", "pictures / s", "of webdataset"]
NOTES = {
    "crop": "Random crop and mirror.",
    "full": "And exposure (table, or ColorJitter) of 80 % and Gaussian blur of 50 % of the views.",
}
OTHERS = "webdataset"
LEAST = {
    (512, "crop", "ours, JPEG"): 1.5,
    (320, "crop", "ours, JPEG"): 2.3,
    (512, "full", "ours, JPEG"): 2.5,
    (320, "full", "ours, JPEG"): 2.5,
    (512, "crop", "ours, raw 256"): 15.0,
    (512, "crop", "ours, raw 320"): 11.0,
}
"""Times as many pictures as webdataset: side, kind and way."""


def main() -> None:
    given = asked(__doc__)
    warnings.simplefilter("ignore")  # of the others, of many kinds
    tables, goals = [crops_table()], []
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            sets = Sets(Path(folder) / str(side), side, IMAGES)
            for kind in NOTES:
                table, wanted = single(sets, kind, given.pace * SECONDS)
                tables.append(table)
                goals += wanted
            tables.append(double(sets, given.pace))
    conclude(given, "loaders", "Loaders of two views", tables, goals)


class Sets:
    """The pictures of one size, as each contender reads them."""

    def __init__(self, folder: Path, side: int, images: int) -> None:
        self.side, self.images = side, images
        self.shards = loader_sets.jpeg_shards(folder / "shards", images, side)
        tiers = RAW if side == max(SIDES) else ()
        self.raw = {
            short: loader_sets.raw_tier(self.shards, folder / f"raw{short}", short)
            for short in tiers
        }
        self.files = loader_sets.image_folder(self.shards, folder / "files")
        self.lit = attempt("litdata", lambda: loader_sets.lit_chunks(self.shards, folder / "lit"))
        self.mosaic = attempt(
            "streaming", lambda: loader_sets.mosaic_chunks(self.shards, folder / "mosaic")
        )

    def ways(self, kind: str, workers: int) -> Ways:
        """By name. workers: 0 works in this thread; else threads of ours, processes of others."""

        def ours(shards: Path, how: str = kind) -> Batches:
            return loader_ways.ours(shards, how, self.images, workers)

        def webdatasets(twice: Twice) -> Batches:
            return loader_ways.webdatasets(self.shards, twice, workers)

        ways: Ways = {"ours, JPEG": ours(self.shards)}
        ways |= {f"ours, raw {side}": ours(folder) for side, folder in self.raw.items()}
        if kind == "full":
            ways["ours, JPEG, our own view (turned, noise)"] = ours(self.shards, "default")
        twice = Twice(kind)
        ways[OTHERS] = webdatasets(twice)
        ways["webdataset, uint8"] = webdatasets(Twice(kind, numbers=False))
        if kind == "crop":
            ways["webdataset, not antialiased"] = webdatasets(Twice(kind, antialias=False))
        ways["ImageFolder"] = loader_ways.folders(self.files, twice, workers)
        others: dict[str, tuple[Made, Callable[..., Batches]]] = {
            "litdata": (self.lit, loader_ways.lit),
            "mosaic": (self.mosaic, loader_ways.mosaic),
        }
        for name, (made, way) in others.items():
            ways[name] = loader_ways.of(made, lambda folder, way=way: way(folder, twice, workers))
        return ways


def single(sets: Sets, kind: str, seconds: float) -> tuple[Table, list[Goal]]:
    """All ways, in this thread."""
    ways = agreeing(sets.ways(kind, 0), sets.images)
    gone = {name: way for name, way in ways.items() if not isinstance(way, str)}
    calls = {name: lambda way=way: through(way()) for name, way in gone.items()}
    times = race(calls, seconds=seconds, clock=time.process_time)
    rates = {name: [sets.images / s for s in spent.rounds] for name, spent in times.items()}
    table = told_in(f"{sets.side} px, {kind}, one thread", NOTES[kind], ways, rates)
    table.details = [{"way": name, "seconds": spent.summary()} for name, spent in times.items()]
    return table, list(goals_of(sets.side, kind, times))


def double(sets: Sets, pace: float) -> Table:
    """Two workers, by the wall clock: threads of ours, processes of the others."""
    ways = {
        name: way
        for name, way in sets.ways("crop", 2).items()
        if name in (OTHERS, "litdata", "ours, JPEG", *(f"ours, raw {side}" for side in RAW))
    }
    rates: dict[str, list[float]] = {}
    for turn in range(max(2, round(4 * pace))):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            way = ways[name]
            if isinstance(way, str):
                continue
            try:
                rates.setdefault(name, []).append(steady(way()))
            except Exception as error:  # whatever it is, the others are still to be timed
                ways[name] = f"fails: {told(error)}"
    note = "Random crop and mirror. Two threads of ours, two processes of the others, wall clock."
    return told_in(f"{sets.side} px, crop, two workers", note, ways, rates)


def told_in(title: str, note: str, ways: Ways, rates: dict[str, list[float]]) -> Table:
    table = Table(title, COLUMNS, note=note)
    for name, way in ways.items():
        row = {"way": name, COLUMNS[1]: way if isinstance(way, str) else "", COLUMNS[2]: ""}
        if name in rates and not isinstance(way, str):
            spent = Times([1 / rate for rate in rates[name]])
            row[COLUMNS[1]] = f"{1 / spent.median:,.0f}"
            if OTHERS in rates:
                theirs = Times([1 / rate for rate in rates[OTHERS]])
                row[COLUMNS[2]] = f"{theirs.over(spent):.2f}"
        table.rows.append(row)
    return table


def agreeing(ways: Ways, images: int) -> Ways:
    """Ways that fail, leave pictures out or show other greys give way to the reason."""
    greys: dict[str, float] = {}
    judged: Ways = {}
    for name, way in ways.items():
        if isinstance(way, str):
            judged[name] = way
            continue
        try:
            many, greys[name] = looked_at(way())
            judged[name] = way if many == images else f"gives {many} of {images} pictures"
        except Exception as error:  # whatever it is, the others are still to be timed
            judged[name] = f"fails: {told(error)}"
    for name, grey in greys.items():
        apart = abs(grey - greys.get(OTHERS, grey))
        if apart > GREYS and not name.startswith(OTHERS):
            judged[name] = f"disagrees: mean grey {apart:.1f} from that of {OTHERS}"
    return judged


def looked_at(batches: Iterator[Tensor]) -> tuple[int, float]:
    """Pictures and mean grey of a pass, 0 to 255."""
    many, total, views = 0, 0.0, 0
    for batch in batches:
        scale = 255.0 if batch.is_floating_point() else 1.0
        total += float(batch.float().mean()) * scale * batch.numel()
        views += batch.numel()
        many += batch.shape[0] * batch.shape[1] // 2
    return many, total / max(views, 1)


def through(batches: Iterator[Tensor]) -> int:
    return sum(len(batch) for batch in batches)


def steady(batches: Iterator[Tensor]) -> float:
    """Pictures a second after the first batch, so that starting is not counted."""
    next(batches)
    begun, many = time.perf_counter(), 0
    for _ in batches:
        many += BATCH
    return many / (time.perf_counter() - begun)


def goals_of(side: int, kind: str, times: dict[str, Times]) -> Iterator[Goal]:
    """What is wanted of ours; where it is not there, the goal is missed."""
    for (size, what, name), wanted in LEAST.items():
        if (size, what) == (side, kind) and OTHERS in times:
            ratio = times[OTHERS].over(times[name]) if name in times else 0.0
            yield Goal(f"{side} px, {kind}: {name} over {OTHERS}", wanted, ratio)


if __name__ == "__main__":
    main()
