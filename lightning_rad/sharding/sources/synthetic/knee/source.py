"""The source of synthetic knees: a plan without pixels, and their rendering on demand."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from lightning_rad.schema import Box, Radiograph
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources.synthetic.attenuation import box_of
from lightning_rad.sharding.sources.synthetic.detector import (
    Exposure,
    add_marker,
    draw_exposure,
    expose,
)
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
from lightning_rad.sharding.sources.synthetic.knee.shadow import Shadow, cast
from lightning_rad.sharding.sources.synthetic.projection import Camera
from lightning_rad.sharding.sources.synthetic.settings import share, uniform, whole
from lightning_rad.sharding.sources.synthetic.solids import LEFT, RIGHT

_BUILD, _GRADES, _WEAR, _IMAGE, _METAL = range(11, 16)
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

    def _render(self, build: Build, shot: Shot) -> Radiograph:
        patient, number, side = shot
        grades = draw_grades(self._rng(patient, _GRADES))
        wear = draw_wear(self._rng(patient, _WEAR, ordinal=side > 0), grades[side > 0], number)
        rng = self._rng(patient, _IMAGE, number, side > 0)
        knee = Knee(build, wear, side, flexion=float(rng.uniform(-0.055, 0.055)))
        camera = draw_camera(rng, build, self.size)
        metal = draw_hardware(self._rng(patient, _METAL, ordinal=side > 0), knee)
        shadow = cast(knee, camera, metal)
        letter = "L" if side == LEFT else "R"
        corner = (float(rng.choice([0.08, 0.92])), float(rng.uniform(0.05, 0.2)))
        add_marker(shadow.attenuation, camera, letter, corner)
        pixels = expose(shadow.attenuation, draw_knee_exposure(rng))
        fixations = look(rng, knee, camera)
        known = rng.random() >= self.unlabelled_fraction
        labels = {
            label: int(grade == wear.grade) if known else None
            for grade, label in enumerate(self.labels)
        }
        return Radiograph(pixels, "AP", 8, labels, _boxes(knee, camera, shadow), fixations)

    def _rng(
        self, patient: int, purpose: int, study: int = 0, ordinal: int = 0
    ) -> np.random.Generator:
        return np.random.default_rng([self.seed, patient, purpose, study, int(ordinal)])


def draw_camera(rng: np.random.Generator, build: Build, size: int) -> Camera:
    """Draw how one picture of a knee is taken: framing, rotation, centring."""
    return Camera(
        view="AP",
        size=size,
        pitch=float(rng.uniform(11.5, 15.0)) * build.scale / size,
        turn=float(rng.normal(0.0, 0.08)),
        shift=(float(rng.normal(0.0, 0.7)), float(rng.normal(0.0, 0.8))),
        beam=-0.2,
        distance=115.0,
        gap=7.0,
    )


def draw_knee_exposure(rng: np.random.Generator) -> Exposure:
    """Draw an exposure; a limb scatters less than a chest, and its window ends above the bone."""
    drawn = draw_exposure(rng, portable=False)
    window = (float(rng.uniform(3.0, 12.0)), float(rng.uniform(98.8, 99.9)))
    return replace(drawn, scatter=0.5 * drawn.scatter, window=window, gamma=1.2 * drawn.gamma)


def _boxes(knee: Knee, camera: Camera, shadow: Shadow) -> tuple[Box, ...]:
    boxes = []
    for m in (MEDIAL, LATERAL):
        gap = knee.wear.space(m)
        if gap < NARROWED:
            corners = [(m * 0.5, -gap - 0.25), (m * 3.7, 0.25)]
            column, row, _ = camera.pixels(np.array([knee.point(*c) for c in corners]))
            x, y = float(column.min()), float(row.min())
            boxes.append(Box("narrowing", x, y, float(np.ptp(column)), float(np.ptp(row))))
    for spur, part in shadow.spurs:
        # only the name of a finding says anything of its box
        found = Finding("osteophyte", knee.side, "", spur.length, (0.0, 0.0, 0.0), 0)
        box = box_of(found, part)
        if spur.length >= DEFINITE and box is not None:
            boxes.append(box)
    return tuple(boxes)
