"""Sets for the scale rehearsal: 70,000 images on disk, 700,000 over them, and indexes of more."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Manifest, Shard, load_manifest, read_index, write_index
from lightning_rad.schema import Radiograph
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources.synthetic import SyntheticSource

SIDE = 256
MARGIN = 32
"""Pixels by which a synthetic radiograph is larger than the parts taken of it."""
PER_SHARD = 1000
GRAIN = 6.0
"""Standard deviation of the noise in greys: as a JPEG of quality 90, the bytes of a radiograph."""
SEED = 8
WORKERS = 2


class Varied:
    """A source of studies of one image: parts of synthetic radiographs, each another one.

    Image i is a part of picture i mod their number, mirrored or not, of other greys and noise, so
    its bytes are its own, and decoding costs what a radiograph costs.

    folder: what `radiographs` made.
    """

    version = 1
    labels = SyntheticSource.labels

    def __init__(self, images: int, folder: str) -> None:
        self.images, self.folder = images, folder
        self._loaded: tuple[npt.NDArray[np.uint8], list[Any], npt.NDArray[np.int16]] | None = None

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """Two studies a patient, all to train on."""
        numbers = range(self.images)
        return [PlannedStudy(f"p{n // 2}", f"s{n}", (n,), split="train") for n in numbers], []

    def read(self, study: PlannedStudy) -> ReadStudy:
        if self._loaded is None:
            labels = json.loads((Path(self.folder) / "labels.json").read_text())
            grain = GRAIN * np.random.default_rng(SEED).standard_normal((1024, 1024), np.float32)
            pictures = np.load(Path(self.folder) / "pictures.npy", mmap_mode="r")
            self._loaded = pictures, labels, grain.astype(np.int16)
        pictures, labels, noise = self._loaded
        number = study.images[0]
        drawn = np.random.default_rng([SEED, number])
        top, left, flip, shift = drawn.integers((MARGIN + 1, MARGIN + 1, 2, 41)).tolist()
        y, x = drawn.integers(0, 1024 - SIDE, 2).tolist()
        part = pictures[number % len(pictures), top : top + SIDE, left : left + SIDE]
        grey = part[:, :: 1 - 2 * flip] + noise[y : y + SIDE, x : x + SIDE] + np.int16(shift - 20)
        known = labels[number % len(pictures)]
        return ReadStudy((Radiograph(grey.clip(0, 255).astype(np.uint8), labels=known),))


def radiographs(out: Path, many: int) -> None:
    """So many synthetic radiographs, SIDE + MARGIN a side, with their labels."""
    out.mkdir()
    patients = range(0, many, 8)  # each gives at least one
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        made = [pair for pairs in pool.map(_of_patients, patients) for pair in pairs][:many]
    np.save(out / "pictures.npy", np.stack([pixels for pixels, _ in made]))
    (out / "labels.json").write_text(json.dumps([labels for _, labels in made]))


def _of_patients(first: int) -> list[tuple[npt.NDArray[np.uint8], dict[str, int | None]]]:
    """Pictures of eight patients, of their first studies."""
    source = SyntheticSource(8, seed=SEED + first, size=SIDE + MARGIN, max_studies=1)
    read = [source.read(study).images[0] for study in source.plan()[0]]
    return [(image.pixels.astype(np.uint8), dict(image.labels)) for image in read]


def on_disk(pictures: Path, out: Path, images: int) -> Manifest:
    """Shards of so many images, by the package's own build."""
    recipe = Recipe(
        name="varied",
        namespace="varied",
        salt="public",
        labels=Varied.labels,
        source=SourceSettings(
            "benchmarks.scale_sets.Varied", {"images": images, "folder": str(pictures)}
        ),
        image=ImageSettings(quality=90),
        images_per_shard=PER_SHARD,
    )
    return build_recipe(recipe, out, workers=WORKERS)


def repeated(real: Manifest, out: Path, times: int) -> Manifest:
    """A set of `times` as many shards: links to the same tars, an index and patients of its own."""
    shards: list[Shard] = []
    out.mkdir()
    for turn, shard in of_shards(real, times):
        number = f"train-{len(shards):06d}"
        os.link(real.root / shard.file, out / f"{number}.tar")
        studies, images = read_index(real.root / shard.index)
        studies["patient"] ^= np.uint64(turn)
        write_index(out / f"{number}.idx", studies, images)
        digest = _digest(out / f"{number}.idx")
        named = replace(shard, file=f"{number}.tar", index=f"{number}.idx", index_sha256=digest)
        shards.append(named)
    return _saved(real, out, shards)


def linked(made: Manifest, out: Path, times: int) -> Manifest:
    """The same of links alone, indexes too: patients repeat, and no byte is written twice."""
    shards: list[Shard] = []
    out.mkdir()
    for _, shard in of_shards(made, times):
        number = f"train-{len(shards):06d}"
        os.link(made.root / shard.file, out / f"{number}.tar")
        os.link(made.root / shard.index, out / f"{number}.idx")
        shards.append(replace(shard, file=f"{number}.tar", index=f"{number}.idx"))
    return _saved(made, out, shards)


def of_shards(manifest: Manifest, times: int) -> Iterator[tuple[int, Shard]]:
    return ((turn, shard) for turn in range(times) for shard in manifest.shards)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _saved(like: Manifest, out: Path, shards: list[Shard]) -> Manifest:
    replace(like, root=out, shards=tuple(shards), remote=None).save()
    return load_manifest(out)
