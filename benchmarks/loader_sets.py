"""The same pictures as each loader wants them: our shards, files in a folder, chunks of others."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import webdataset

from benchmarks.ways import told
from lightning_rad import sharding
from lightning_rad.cli.cache import cache
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.schema import Radiograph
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection

GRAIN = 0.024
"""Standard deviation of the noise: as a JPEG of quality 90, 2.3 bits a pixel, like radiographs."""
SEED = 20
PER_SHARD = 128

Sample = tuple[bytes, bytes]
"""A picture's bytes and a text."""


class Grainy:
    """A source of square pictures with a radiograph's share of smooth shades and of noise."""

    version = 1

    def __init__(self, images: int, side: int) -> None:
        self.images, self.side = images, side

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        names = [f"{number:06d}" for number in range(self.images)]
        return [PlannedStudy(name, name, (self.side,)) for name in names], []

    def read(self, study: PlannedStudy) -> ReadStudy:
        return ReadStudy((Radiograph(picture(int(study.study), self.side)),))


def picture(number: int, side: int) -> np.ndarray:
    """[side, side] uint8."""
    drawn = np.random.default_rng([SEED, number])
    cells = max(4, side // 48)
    shades = cv2.resize(drawn.random((cells, cells), np.float32), (side, side), interpolation=2)
    grey = 0.15 + 0.7 * shades + GRAIN * drawn.standard_normal((side, side), np.float32)
    return np.clip(grey * 255, 0, 255).astype(np.uint8)


def jpeg_shards(out: Path, images: int, side: int) -> Path:
    """Our shards of JPEGs; made where they are not there yet."""
    recipe = Recipe(
        name=f"grainy_{side}",
        namespace="grainy",
        salt="public",
        source=SourceSettings("benchmarks.loader_sets.Grainy", {"images": images, "side": side}),
        image=ImageSettings(quality=90),
        images_per_shard=PER_SHARD,
    )
    build_recipe(recipe, out, workers=1)
    return out


def raw_tier(shards: Path, out: Path, side: int) -> Path:
    cache(shards, out, short_side=side, threads=1)
    return out


def samples(shards: Path) -> Iterator[Sample]:
    """Picture and report of every image of some shards, in order."""
    manifest = load_manifest(shards)
    source = ShardSource(load_index(manifest, manifest.shards))
    for image, row in enumerate(source.index.images):
        yield bytes(source.image(image)[0]), source.report(int(row["study"]))


def image_folder(shards: Path, out: Path) -> Path:
    """A file each, in one folder of one class."""
    (out / "all").mkdir(parents=True, exist_ok=True)
    for number, (data, _) in enumerate(samples(shards)):
        (out / "all" / f"{number:06d}.jpg").write_bytes(data)
    return out


def plain_tars(out: Path, many: int, size: int) -> Path:
    """Samples of bytes that nobody decodes, with a text each, as webdataset writes them."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(SEED)
    for shard in range(4):
        with webdataset.TarWriter(str(out / f"train-{shard}.tar"), encoder=False) as writer:
            for number in range(shard * many // 4, (shard + 1) * many // 4):
                text = f"report {number} ".encode() * 20
                writer.write({"__key__": f"{number:06d}", "jpg": drawn.bytes(size), "txt": text})
    sharding.index(out)
    return out


def lit_chunks(shards: Path, out: Path) -> Path:
    """What litdata reads, written by the writer under its `optimize`."""
    from litdata.streaming.writer import BinaryWriter  # noqa: PLC0415 - may be missing

    out.mkdir(parents=True, exist_ok=True)
    writer = BinaryWriter(str(out), chunk_bytes="64MB")
    for number, (data, text) in enumerate(samples(shards)):
        writer[number] = {"image": data, "text": text}
    writer.done()
    writer.merge()
    return out


def mosaic_chunks(shards: Path, out: Path) -> Path:
    """What mosaicml-streaming reads."""
    from streaming import MDSWriter  # noqa: PLC0415 - may be missing

    with MDSWriter(out=str(out), columns={"image": "bytes", "text": "bytes"}) as writer:
        for data, text in samples(shards):
            writer.write({"image": data, "text": text})
    return out


@dataclass(frozen=True)
class Made:
    """A set for some contender, or why there is none."""

    folder: Path | None
    why: str = ""


def attempt(module: str, make: Callable[[], Path]) -> Made:
    """What `make` makes, where the module is installed and the making works."""
    try:
        importlib.import_module(module)
        return Made(make())
    except Exception as error:  # whatever it is, the others are still to be timed
        return Made(None, f"not here: {told(error)}")
