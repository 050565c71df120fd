"""Samples a second out of tars, bytes alone: ours, webdataset, tarfile, SPDL, litdata, mosaic.

    python -m benchmarks.tar_iteration OUT [--pace 1]

A sample is a picture's bytes and a text. Contenders take turns on the same samples, in the memory
of the page cache, and must give the same bytes first; one that is not installed is left out by
name. Seconds are of this process on the CPU. Writes OUT/tar_iteration_<machine>_<date>.json and
.md; exits with 1 where a target is missed.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import webdataset

from benchmarks import loader_sets
from benchmarks.loader_race import asked, conclude
from benchmarks.loader_sets import Made, Sample, attempt
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from benchmarks.ways import optional
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest

MANY = 2000
SIZES = {"38 KB (390 x 320)": 38_000, "76 KB (512 x 512)": 76_000}
LEAST = {"webdataset": 20.0, "litdata": 2.0}
SECONDS = 20.0
COLUMNS = ["way", "samples a CPU second", "ours / it"]
NOTE = """Median over rounds; then how many times as many samples ours gives, in another order each
pass, the median over rounds of the two times in that round."""

Way = Callable[[], Iterator[Sample]]


def main() -> None:
    given = asked(__doc__)
    tables, goals = [], []
    for title, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            ways = ways_through(Path(folder), MANY, size)
            table, wanted = measured(title, ways, given.pace * SECONDS)
        tables.append(table)
        goals += wanted
    conclude(given, "tar_iteration", "Tar iteration", tables, goals)


def ways_through(folder: Path, many: int, size: int) -> dict[str, Way | str]:
    tars = loader_sets.plain_tars(folder / "tars", many, size)
    chunks = attempt("litdata", lambda: loader_sets.lit_chunks(tars, folder / "lit"))
    shards = attempt("streaming", lambda: loader_sets.mosaic_chunks(tars, folder / "mosaic"))
    spdl = optional("spdl.io", "iter_tarfile")
    paths = sorted(tars.glob("*.tar"))
    return {
        "ours": by_us(tars, shuffled=True),
        "ours, in order": by_us(tars, shuffled=False),
        "webdataset": lambda: by_webdataset(paths),
        "tarfile": lambda: by_tarfile(paths),
        "SPDL": spdl if isinstance(spdl, str) else lambda: by_spdl(spdl, paths),
        "litdata": by_litdata(chunks),
        "mosaic": by_mosaic(shards),
    }


def measured(title: str, ways: dict[str, Way | str], seconds: float) -> tuple[Table, list[Goal]]:
    """The ways that give the same samples, timed; the others with a reason."""
    wanted = digest(ways["ours"])  # type: ignore[arg-type]
    for name, way in ways.items():
        if not isinstance(way, str) and digest(way) != wanted:
            ways[name] = "gives other bytes"
    gone = {name: way for name, way in ways.items() if not isinstance(way, str)}
    calls = {name: lambda way=way: through(way) for name, way in gone.items()}
    times = race(calls, seconds=seconds, clock=time.process_time)
    table = Table(f"Samples of {title}", COLUMNS, note=NOTE)
    for name, way in ways.items():
        row = {"way": name, COLUMNS[1]: way if isinstance(way, str) else ""}
        if name in times:
            row[COLUMNS[1]] = f"{MANY / times[name].median:,.0f}"
            row[COLUMNS[2]] = f"{times[name].over(times['ours']):.1f}"
        table.rows.append(row)
    table.details = [{"way": name, "seconds": spent.summary()} for name, spent in times.items()]
    return table, list(goals_of(title, times))


def goals_of(title: str, times: dict[str, Times]) -> Iterator[Goal]:
    for name, wanted in LEAST.items():
        if name in times:
            yield Goal(f"{title}: {name} / ours", wanted, times[name].over(times["ours"]))


def through(way: Way) -> int:
    return sum(len(data) for data, _ in way())


def digest(way: Way) -> str:
    """Of all samples, whatever their order; each is looked at to its last byte."""
    found = sorted(hashlib.sha256(bytes(data) + b"|" + text).digest() for data, text in way())
    return hashlib.sha256(b"".join(found)).hexdigest()


def by_us(tars: Path, *, shuffled: bool) -> Way:
    manifest = load_manifest(tars)
    source = ShardSource(load_index(manifest, manifest.shards))
    order, drawn = np.arange(len(source.index.images)), np.random.default_rng(0)
    study = source.index.images["study"]

    def way() -> Iterator[Sample]:
        if shuffled:
            drawn.shuffle(order)
        for image, of in zip(order.tolist(), study[order].tolist(), strict=True):
            yield source.image(image)[0], source.report(of)  # type: ignore[misc]  # bytes: JPEG

    return way


def by_webdataset(paths: list[Path]) -> Iterator[Sample]:
    for sample in webdataset.WebDataset([str(path) for path in paths], shardshuffle=False):
        yield sample["jpg"], sample["txt"]


def by_tarfile(paths: list[Path]) -> Iterator[Sample]:
    for path in paths:
        with tarfile.open(path) as tar:
            bodies = (tar.extractfile(member).read() for member in tar)  # type: ignore[union-attr]
            yield from zip(bodies, bodies, strict=True)


def by_spdl(
    iter_tarfile: Callable[..., Iterator[tuple[str, bytes]]], paths: list[Path]
) -> Iterator[Sample]:
    for path in paths:
        with path.open("rb") as file:
            bodies = (data for _, data in iter_tarfile(file))
            yield from zip(bodies, bodies, strict=True)


def by_litdata(made: Made) -> Way | str:
    if made.folder is None:
        return made.why
    from litdata import StreamingDataset  # noqa: PLC0415 - may be missing

    rows = StreamingDataset(str(made.folder))
    return lambda: ((row["image"], row["text"]) for row in rows)


def by_mosaic(made: Made) -> Way | str:
    if made.folder is None:
        return made.why
    from streaming import StreamingDataset  # noqa: PLC0415 - may be missing

    rows = StreamingDataset(local=str(made.folder), batch_size=1, shuffle=False)
    return lambda: ((rows[n]["image"], rows[n]["text"]) for n in range(len(rows)))


if __name__ == "__main__":
    main()
