"""Small studies for the tests of sharding: a source without files, and a table with files."""

import csv
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lightning_rad.schema import Box, Fixation, Radiograph
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection

CLASS = "tests.sharding.phantoms.Phantoms"


def phantom(*seed, height=40, width=48, dtype=np.uint8, top=None):
    """A smooth random picture: compressible, and unlike any other in its fingerprint."""
    state = int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:8], "big")
    rng = np.random.default_rng(state)
    coarse = rng.random((18, 18)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return (smooth * (top or np.iinfo(dtype).max)).astype(dtype)


@dataclass(frozen=True)
class Phantoms:
    """patients with 1 to 3 studies of 1 to 3 images, reports, boxes, gaze, and 12-bit images."""

    patients: int = 16
    seed: int = 0
    pause: float = 0.0
    broken: int = 0

    def plan(self):
        planned = []
        for patient in range(self.patients):
            rng = np.random.default_rng([self.seed, patient])
            for study in range(int(rng.integers(1, 4))):
                images = tuple((patient, study, i) for i in range(int(rng.integers(1, 4))))
                planned.append(PlannedStudy(f"Smith^{patient}", f"visit-{study}", images))
        return planned, []

    def read(self, study):
        time.sleep(self.pause)
        images, rejected = [], []
        for record in study.images:
            if record[0] < self.broken:
                rejected.append(Rejection(f"image {record[2]}", "damaged image: on purpose"))
            else:
                images.append(self.radiograph(record))
        return ReadStudy(tuple(images), f"Report of visit {study.images[0]}.", tuple(rejected))

    def radiograph(self, record):
        deep = record[2] == 2
        pixels = (
            phantom(self.seed, record, dtype=np.uint16, top=4095)
            if deep
            else phantom(self.seed, record)
        )
        return Radiograph(
            pixels,
            view=("PA", "LATERAL", "AP")[record[2]],
            bits=12 if deep else 8,
            labels={"Effusion": record[0] % 2, "Mass": (None, 0, 1)[record[0] % 3]},
            boxes=(Box("Effusion", 4.0, 5.0, 10.0, 12.0),),
            fixations=(Fixation(0.25, 0.5, 0.2),) if record[2] == 0 else (),
        )


def recipe(**changes):
    """A recipe for phantoms; keyword arguments replace its fields, `source` those of the source."""
    settings = {
        "name": "phantoms",
        "namespace": "tests",
        "salt": "public",
        "splits": {"train": 0.6, "val": 0.2, "test": 0.2},
        "image": ImageSettings(short_side=32, quality=90),
        "images_per_shard": 8,
    } | changes
    return Recipe(**settings | {"source": SourceSettings(CLASS, changes.get("source", {}))})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_images(folder: Path, names, **shape) -> None:
    """One phantom a name, in the format of its suffix."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), phantom(name, **shape))


def write_csv(path: Path, rows, *, start=b"", newline="\n") -> None:
    """A CSV of mappings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator=newline)
        writer.writeheader()
        writer.writerows(rows)
    path.write_bytes(start + path.read_bytes())
