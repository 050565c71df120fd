"""Reading by URL: what 100 ms of latency cost a stream, and what local reading costs an image.

    python -m benchmarks.remote_reading OUT [--pace 1]

The stream (two views of 224, `data.loading` as by default) is asked for batches at the pace of a
training step that takes longer than the batch takes to make; images a second are counted from the
fifth batch on, from the local folder and from a server on loopback, in another process, that lets
every request wait for 100 ms. The cache is empty at the start and must not be after. The same
batches come first. Then `ShardSource.image` against the same bytes by `os.pread` alone.
Writes OUT/remote_reading_<machine>_<date>.json and .md; exits with 1 where a target is missed.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader_race import asked, conclude
from benchmarks.report import Goal, Table
from benchmarks.streams import opened, stream_over
from lightning_rad.data.settings import Shuffle
from lightning_rad.data.source import ShardSource
from lightning_rad.data.stream import Stream
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.storage.settings import Remote
from tests.storage.faulty import FaultyServer

LATENCY = 0.1
IMAGES = 3000
SIDE = 320
BATCH = 32
STEP = 0.25
"""Seconds of a step: half of what two views of a batch take on two slow cores, and more."""
SHUFFLE = Shuffle(seed=1, groups=4, window=256)


def main() -> None:
    given = asked(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        shards = made(Path(folder) / "set")
        count = int(given.pace * 120)
        tables, goals = [], []
        for table, goal in (hidden(shards, Path(folder), count), local(shards)):
            tables.append(table)
            goals.append(goal)
    conclude(given, "remote_reading", "Reading by URL", tables, goals)


def made(out: Path) -> Path:
    recipe = Recipe(
        name="grainy",
        namespace="grainy",
        salt="public",
        source=SourceSettings("benchmarks.loader_sets.Grainy", {"images": IMAGES, "side": SIDE}),
        image=ImageSettings(quality=90),
        images_per_shard=60,
    )
    build_recipe(recipe, out, workers=2)
    return out


def stream_of(name: str, remote: Remote) -> Stream:
    return stream_over(opened(name, remote, SHUFFLE), SHUFFLE, BATCH)


@contextmanager
def far_away(folder: Path) -> Iterator[str]:
    """The URL of a folder behind latency, served by another process."""
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve, args=(folder, theirs), daemon=True)
    server.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        server.join()


def serve(folder: Path, told: Connection) -> None:
    server = FaultyServer(folder)
    server.latency = LATENCY
    with server.running() as url:
        told.send(url)
        told.recv()


def hidden(shards: Path, folder: Path, count: int) -> tuple[Table, Goal]:
    with far_away(shards) as url:
        settings = Remote(cache=str(folder / "checked"))
        pairs = zip(batches(str(shards), settings, 12), batches(url, settings, 12), strict=True)
        assert all(torch.equal(a.pixels, b.pixels) for a, b in pairs), "other batches"  # type: ignore[arg-type]
        rates: dict[str, list[float]] = {"local": [], "100 ms away": []}
        starts: dict[str, list[float]] = {name: [] for name in rates}
        for turn in range(3):
            for name, place in zip(rates, (str(shards), url), strict=True):
                empty = Remote(cache=str(folder / f"cache{turn}"))
                begun = time.perf_counter()
                first, rate = paced(stream_of(place, empty), count, begun)
                rates[name].append(rate)
                starts[name].append(first)
    rows = [
        {
            "from": name,
            "images a second": f"{np.median(rate):.0f}",
            "first batch after": f"{np.median(starts[name]):.2f} s",
        }
        for name, rate in rates.items()
    ]
    shares = [far / near for near, far in zip(*rates.values(), strict=True)]
    note = f"{count} batches of {BATCH}, a step of {STEP} s; {SIDE} px; median of three turns."
    table = Table("Latency", list(rows[0]), rows, note, [{"rates": rates, "starts": starts}])
    return table, Goal("images a second, 100 ms away : local", 0.9, float(np.median(shares)))


def batches(place: str, settings: Remote, count: int) -> list[object]:
    return list(islice(stream_of(place, settings).batches((0,)), count))


def paced(stream: Stream, count: int, begun: float) -> tuple[float, float]:
    """Seconds to the first batch since `begun`, images a second from the fifth batch on."""
    coming = stream.batches((0,))
    next(coming)
    first = time.perf_counter() - begun
    for number in range(count):
        if number == 4:
            start = time.perf_counter()
        batch = time.perf_counter()
        next(coming)
        time.sleep(max(0.0, STEP - (time.perf_counter() - batch)))
    return first, (count - 4) * BATCH / (time.perf_counter() - start)


def local(shards: Path) -> tuple[Table, Goal]:
    manifest = load_manifest(shards)
    index = load_index(manifest, manifest.of_split("train"))
    source = ShardSource(index)
    order = np.random.default_rng(0).permutation(len(index.images)).tolist()
    files = [os.open(path, os.O_RDONLY) for path in index.files]
    owner = index.shard_of_study[index.images["study"]].tolist()
    places = list(zip(index.images["offset"].tolist(), index.images["size"].tolist(), strict=True))

    def ours() -> int:
        return sum(len(source.image(n)[0]) for n in order)

    def bare() -> int:
        return sum(len(os.pread(files[owner[n]], places[n][1], places[n][0])) for n in order)

    assert ours() == bare()
    spent: dict[str, list[float]] = {"ShardSource.image": [], "os.pread alone": []}
    for _ in range(9):
        for name, way in zip(spent, (ours, bare), strict=True):
            begun = time.process_time()
            way()
            spent[name].append((time.process_time() - begun) / len(order))
    for file in files:
        os.close(file)
    rows = [{"way": k, "us an image": f"{np.median(v) * 1e6:.1f}"} for k, v in spent.items()]
    table = Table("Local reading", list(rows[0]), rows, "CPU time, page cache.", [spent])
    goal = Goal(
        "an image of a local shard",
        50.0,
        float(np.median(spent["ShardSource.image"])) * 1e6,
        most=True,
        unit="us",
    )
    return table, goal


if __name__ == "__main__":
    main()
