"""The source of synthetic knees: a plan without pixels, and their rendering on demand."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from lightning_rad.schema import Box, Radiograph
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources.synthetic.attenuation import box_of
from lightning_rad.sharding.sources.synthetic.detector import expose
from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.knee.bones import Knee
from lightning_rad.sharding.sources.synthetic.knee.gaze import look
from lightning_rad.sharding.sources.synthetic.knee.hardware import draw_hardware
from lightning_rad.sharding.sources.synthetic.knee.joint import (
    DEFINITE,
    GRADES,
    LATERAL,
    MEDIAL,
    NARROWED,
    Build,
    draw_build,
    draw_grades,
    draw_wear,
)
from lightning_rad.sharding.sources.synthetic.knee.pose import (
    Pose,
    draw_knee_exposure,
    draw_pose,
    mark,
    slope,
)
from lightning_rad.sharding.sources.synthetic.knee.shadow import Shadow, cast
from lightning_rad.sharding.sources.synthetic.settings import share, uniform, whole
from lightning_rad.sharding.sources.synthetic.solids import LEFT, RIGHT

_BUILD, _GRADES, _WEAR, _IMAGE, _METAL, _POSE = range(11, 17)
"""What a random generator is for; no two draws of different kinds share one."""

VERSION: Final = 1
"""Raised with every change to pixels, labels, boxes or gaze of the same settings."""


class Shot(NamedTuple):
    """One image to make: patient and study count from 0, side is RIGHT or LEFT."""

    patient: int
    study: int
    side: int


class SyntheticKnees:
    """Parametric knees, both of a patient at each study, from the front.

    Patient i is a function of (seed, i) and the settings other than `patients`, so a larger set
    begins with the smaller one, and any part can be made in any process. A grade is five labels of
    which one is 1. Boxes: "narrowing" and "osteophyte", where these are definite. No report.

    patients: how many. seed: of everything. size: pixels a side. max_studies: most studies of a
    patient (the fewest is 1). unlabelled_fraction: share of the images whose grade is unknown.

    Raises ValueError, naming the argument.
    """

    labels: tuple[str, ...] = tuple(f"kl_{grade}" for grade in range(GRADES))
    version: Final = VERSION

    def __init__(
        self,
        patients: int,
        *,
        seed: int = 0,
        size: int = 256,
        max_studies: int = 2,
        unlabelled_fraction: float = 0.0,
    ) -> None:
        self.patients = whole("patients", patients, 1, 2**31 - 1)
        self.seed = whole("seed", seed, 0, 2**63 - 1)
        self.size = whole("size", size, 32, 4096)
        self.max_studies = whole("max_studies", max_studies, 1, 100)
        self.unlabelled_fraction = share("unlabelled_fraction", unlabelled_fraction)

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """Every study, patient after patient; nothing is ever refused."""
        luck = uniform("synthetic-knees", self.seed, 0, self.patients)
        planned = []
        for patient, count in enumerate((1 + (self.max_studies * luck**2).astype(int)).tolist()):
            name = f"synthetic-knees-{self.seed}-{patient}"
            planned += [
                PlannedStudy(
                    name,
                    f"{name}-{study}",
                    (Shot(patient, study, RIGHT), Shot(patient, study, LEFT)),
                )
                for study in range(count)
            ]
        return planned, []

    def read(self, study: PlannedStudy) -> ReadStudy:
        """Render both knees of one study."""
        shots: tuple[Shot, ...] = study.images
        build = draw_build(self._rng(shots[0].patient, _BUILD))
        return ReadStudy(tuple(self._render(build, shot) for shot in shots))

    def taken(self, shot: Shot) -> tuple[Knee, Pose]:
        """The knee of one picture, and how that is taken."""
        build = draw_build(self._rng(shot.patient, _BUILD))
        return self._taken(build, shot)

    def _taken(self, build: Build, shot: Shot) -> tuple[Knee, Pose]:
        patient, number, side = shot
        grades = draw_grades(self._rng(patient, _GRADES))
        wear = draw_wear(self._rng(patient, _WEAR, ordinal=side > 0), grades[side > 0], number)
        rng = self._rng(patient, _POSE, number, side > 0)
        knee = Knee(build, wear, side, flexion=float(rng.uniform(-0.055, 0.055)))
        return knee, draw_pose(rng, build, self.size)

    def _render(self, build: Build, shot: Shot) -> Radiograph:
        patient, number, side = shot
        knee, pose = self._taken(build, shot)
        rng = self._rng(patient, _IMAGE, number, side > 0)
        metal = draw_hardware(self._rng(patient, _METAL, ordinal=side > 0), knee)
        shadow = cast(knee, pose.wide, metal, pose.other)
        attenuation = pose.turned(shadow.attenuation)
        slope(rng, attenuation)
        mark(rng, attenuation, pose, side)
        pixels = pose.collimated(expose(attenuation, draw_knee_exposure(rng)))
        fixations = look(rng, knee, pose)
        known = rng.random() >= self.unlabelled_fraction
        labels = {
            label: int(grade == knee.wear.grade) if known else None
            for grade, label in enumerate(self.labels)
        }
        return Radiograph(pixels, "AP", 8, labels, _boxes(knee, pose, shadow), fixations)

    def _rng(
        self, patient: int, purpose: int, study: int = 0, ordinal: int = 0
    ) -> np.random.Generator:
        return np.random.default_rng([self.seed, patient, purpose, study, int(ordinal)])


def _boxes(knee: Knee, pose: Pose, shadow: Shadow) -> tuple[Box, ...]:
    boxes = []
    for m in (MEDIAL, LATERAL):
        gap = knee.wear.space(m)
        if gap < NARROWED:
            corners = [knee.point(m * x, y) for x in (0.5, 3.7) for y in (-gap - 0.25, 0.25)]
            column, row = pose.pixels(np.array(corners))
            x, y = float(column.min()), float(row.min())
            boxes.append(Box("narrowing", x, y, float(np.ptp(column)), float(np.ptp(row))))
    for spur, part in shadow.spurs:
        # only the name of a finding says anything of its box
        found = Finding("osteophyte", knee.side, "", spur.length, (0.0, 0.0, 0.0), 0)
        box = box_of(found, pose.turned(part)) if spur.length >= DEFINITE else None
        if box is not None:
            boxes.append(box)
    return tuple(boxes)
