"""Building shards from files: images a second of a core, and where the time goes.

    python -m benchmarks.building OUT [--pace 1]

Files as the big sets hold them (synthetic pictures of their sizes, formats and bits a pixel) are
built by one worker, each step's own CPU time counted apart. The source's last step before reading,
the operating system's copying of files, is in "read and decode".
"""

from __future__ import annotations

import contextlib
import csv
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import simplejpeg
from webdataset import TarWriter

from benchmarks.loader_race import asked, conclude
from benchmarks.report import Goal, Table
from lightning_rad.modalities.radiograph import Pixels
from lightning_rad.sharding import encode, write
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.sources import images

USEFUL = ("read and decode", "shrink", "encode")
STEPS = (*USEFUL, "digest", "fingerprint", "tar", "index and checksum", "rest")
WANTED = 0.9
"""Share of the time that should go into what nobody can leave out."""

SETS = {
    "JPEG 3056 x 2544, as MIMIC-CXR-JPG": (3056, 2544, 8, "jpg", 24),
    "PNG 1024 x 1024, as ChestX-ray14": (1024, 1024, 8, "png", 96),
    "PNG 2500 x 2048 of 16 bits, as PadChest": (2500, 2048, 16, "png", 16),
    "JPEG 390 x 320, as CheXpert small": (390, 320, 8, "jpg", 400),
}
"""Height, width, bits, format and number of files."""

SHORT_SIDE = 512


class Stopwatch:
    """CPU seconds of some functions, each without those that it calls."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._running = ["rest"]
        self._since = time.process_time()

    def _turn(self) -> None:
        now = time.process_time()
        self.spent[self._running[-1]] += now - self._since
        self._since = now

    def timed(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted as a step."""

        @functools.wraps(call)
        def counted(*args: Any, **given: Any) -> Any:
            self._turn()
            self._running.append(step)
            try:
                return call(*args, **given)
            finally:
                self._turn()
                self._running.pop()

        return counted

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count what a build of one worker does."""
        places: list[tuple[str, object, str]] = [
            ("read and decode", images, "read_image"),
            ("shrink", encode, "shrink"),
            ("encode", simplejpeg, "encode_jpeg"),
            ("encode", cv2, "imencode"),
            ("digest", encode, "digest_pixels"),
            ("fingerprint", encode, "fingerprint"),
            ("tar", TarWriter, "write"),
            ("index and checksum", write, "index_shard"),
        ]
        with contextlib.ExitStack() as patches:
            for step, owner, name in places:
                timed = self.timed(step, getattr(owner, name))
                patches.enter_context(mock.patch.object(owner, name, timed))
            self._since = time.process_time()
            yield
            self._turn()


def picture(height: int, width: int, bits: int, seed: int) -> Pixels:
    """Smooth shapes under the noise of a detector: about two bits a pixel as JPEG of quality 90."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 60, width // 60)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grey = smooth * 0.8 + 0.1 + rng.normal(0, 0.016, (height, width)).astype(np.float32)
    top = (1 << bits) - 1
    kind = np.uint8 if bits == 8 else np.uint16
    pixels: Pixels = np.clip(grey * top, 0, top).astype(kind)
    return pixels


def write_set(folder: Path, height: int, width: int, bits: int, kind: str, count: int) -> int:
    """Files and a table of a patient an image; bytes of a file."""
    size = 0
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "patient"])
        for number in range(count):
            pixels = picture(height, width, bits, number % 8)  # what is in it costs the same
            name = f"{number}.{kind}"
            quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == "jpg" else []
            cv2.imwrite(str(folder / name), pixels, quality)
            size += (folder / name).stat().st_size
            table.writerow([name, f"p{number}"])
    return size // count


def recipe(name: str) -> Recipe:
    init = {"csv": "table.csv", "columns": {"image": "file", "patient": "patient"}}
    source = SourceSettings("lightning_rad.sharding.sources.table.TableSource", init)
    image = ImageSettings(SHORT_SIDE, 90)
    return Recipe(name=name, namespace="bench", salt="public", source=source, image=image)


def measure(raw: Path, seconds: float) -> tuple[dict[str, float], float]:
    """CPU seconds an image by step, and wall-clock seconds an image; the best of some builds."""
    best: dict[str, float] = {}
    wall, begun = float("inf"), time.perf_counter()
    for turn in range(100):
        if turn > 1 and time.perf_counter() - begun > seconds:
            break
        watch, since = Stopwatch(), time.perf_counter()
        with tempfile.TemporaryDirectory() as out, watch.watching():
            made = build_recipe(recipe("bench"), Path(out) / "set", root=raw, workers=1)
        count = sum(shard.images for shard in made.shards)
        if not best or sum(watch.spent.values()) < sum(best.values()) * count:
            best = {step: spent / count for step, spent in watch.spent.items()}
        wall = min(wall, (time.perf_counter() - since) / count)
    return best, wall


def main() -> None:
    given = asked(__doc__)
    columns = ["files", "images/s of a core", "ms an image", *STEPS, "decode, shrink, encode"]
    note = f"One worker, one thread, shrunk to {SHORT_SIDE}, JPEG of quality 90. Steps in % of CPU."
    table, goals = Table("Building, where the time goes", columns, note=note), []
    for name, (height, width, bits, kind, count) in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            size = write_set(Path(folder), height, width, bits, kind, count)
            spent, wall = measure(Path(folder), 15 * given.pace)
        total = sum(spent.values())
        useful = sum(spent.get(step, 0) for step in USEFUL) / total
        row = {"files": f"{name}, {size / 1e6:.2f} MB", "images/s of a core": f"{1 / total:.0f}"}
        row |= {step: f"{spent.get(step, 0) / total:.1%}" for step in STEPS}
        row |= {"ms an image": f"{total * 1000:.2f}", "decode, shrink, encode": f"{useful:.1%}"}
        table.rows.append(row)
        table.details.append({"files": name, "bytes": size, "wall": wall, "spent": spent})
        line = f"{name}: time in decode, shrink and encode"
        goals.append(Goal(line, WANTED * 100, useful * 100, unit="%"))
    conclude(given, "building", "Building shards", [table], goals)


if __name__ == "__main__":
    main()
