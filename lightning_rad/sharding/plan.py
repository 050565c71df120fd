"""The plan: which study goes into which shard, decided before any pixel is read.

A pure function of source, recipe and salt, so that a build that was killed finds its way back.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from operator import itemgetter

from lightning_rad.schema import SPLITS
from lightning_rad.sharding.guard import of_version
from lightning_rad.sharding.identity import Identity
from lightning_rad.sharding.recipe import Recipe
from lightning_rad.sharding.source import PlannedStudy, Rejection, Source


@dataclass(frozen=True, slots=True)
class PlacedStudy:
    """A planned study with its hashes, its split and hence its key."""

    patient: str
    study: str
    split: str
    planned: PlannedStudy

    @property
    def key(self) -> str:
        """The sample's key in the tar."""
        return f"{self.patient}-{self.study}"


@dataclass(frozen=True, slots=True)
class Job:
    """One shard to be written: its name without suffix, and its studies in order."""

    name: str
    split: str
    studies: tuple[PlacedStudy, ...]

    @property
    def images(self) -> int:
        """Images planned; those refused when read are among them."""
        return sum(len(s.planned.images) for s in self.studies)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every shard of a build, what was refused already, and the identity of all that."""

    jobs: tuple[Job, ...]
    rejected: tuple[Rejection, ...]
    digest: str


def make_plan(source: Source, recipe: Recipe, identity: Identity) -> Plan:
    """Place every study. Patients are ordered by hash, and none is split over two shards."""
    planned, refused = source.plan()
    rejected = list(refused)
    placed = list(_place(planned, rejected, recipe, identity))
    placed.sort(key=lambda s: (SPLITS.index(s.split), s.patient))  # stable: source order within
    jobs = tuple(_pack(placed, recipe.images_per_shard))
    version = f"{recipe.digest} {getattr(source, 'version', 0)}"
    version += "".join(f" {k} {v}" for k, v in of_version(recipe.privacy).items())
    return Plan(jobs, tuple(rejected), _digest(jobs, rejected, identity, version))


def _place(
    planned: list[PlannedStudy], rejected: list[Rejection], recipe: Recipe, identity: Identity
) -> Iterator[PlacedStudy]:
    official: dict[str, set[str]] = defaultdict(set)
    for study in planned:
        if study.split is not None and study.split not in SPLITS:
            raise ValueError(f"source: split '{study.split}'; accepted are {', '.join(SPLITS)}")
        official[study.patient] |= {study.split} - {None}  # type: ignore[arg-type]
    taken: set[tuple[str, str]] = set()
    for study in planned:
        patient = identity.patient(study.patient)
        key = (patient, identity.study(study.patient, study.study))
        where, splits = "study " + "-".join(key), official[study.patient]
        if not study.patient:
            rejected.append(Rejection(where, "study without patient"))
        elif not study.images:
            rejected.append(Rejection(where, "study without images"))
        elif key in taken:
            rejected.append(Rejection(where, "duplicate key: this study was planned before"))
        elif len(splits) > 1:
            names = " and ".join(sorted(splits))
            rejected.append(Rejection(where, f"patient in two official splits: {names}"))
        else:
            taken.add(key)
            split = next(iter(splits), None) or identity.split(study.patient, recipe.splits)
            yield PlacedStudy(*key, split, study)


def _pack(placed: list[PlacedStudy], images_per_shard: int) -> Iterator[Job]:
    """Cut each split into shards of nearly equal size, about images_per_shard, between patients."""
    for split, members in groupby(placed, key=lambda s: s.split):
        patients = [tuple(studies) for _, studies in groupby(members, key=lambda s: s.patient)]
        sizes = [sum(len(s.planned.images) for s in studies) for studies in patients]
        shards = -(-sum(sizes) // images_per_shard)
        slots = [before * shards // sum(sizes) for before in accumulate(sizes, initial=0)]
        slotted = groupby(zip(slots, patients, strict=False), key=itemgetter(0))
        for number, (_, group) in enumerate(slotted):
            studies = tuple(study for _, patient in group for study in patient)
            yield Job(f"{split}-{number:06d}", split, studies)


def _digest(
    jobs: tuple[Job, ...], rejected: list[Rejection], identity: Identity, version: str
) -> str:
    """Changes with salt, version, and anything in the source's table (not with its folder)."""
    state = hashlib.sha256(f"{version} {identity.salt_id}".encode())
    for job in jobs:
        for study in job.studies:
            state.update(f"\n{job.name} {study.key} {study.planned.images!r}".encode())
    for rejection in rejected:
        state.update(f"\n{rejection!r}".encode())
    return state.hexdigest()[:16]
