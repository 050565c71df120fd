"""The source of synthetic studies: a plan without pixels, and their rendering on demand."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_rad.schema import Radiograph
from lightning_rad.sharding.source import PlannedStudy, ReadStudy, Rejection
from lightning_rad.sharding.sources.synthetic.attenuation import box_of, cast
from lightning_rad.sharding.sources.synthetic.body import Body, grow_body
from lightning_rad.sharding.sources.synthetic.chest import Chest, build_chest
from lightning_rad.sharding.sources.synthetic.detector import add_marker, draw_exposure, expose
from lightning_rad.sharding.sources.synthetic.devices import place_devices
from lightning_rad.sharding.sources.synthetic.findings import LABELS, Finding, courses
from lightning_rad.sharding.sources.synthetic.gaze import look
from lightning_rad.sharding.sources.synthetic.projection import Camera
from lightning_rad.sharding.sources.synthetic.report import write_report
from lightning_rad.sharding.sources.synthetic.settings import share, uniform, whole

_BODY, _COURSE, _STUDY, _IMAGE, _REPORT = range(1, 6)
"""What a random generator is for; no two draws of different kinds share one."""

VERSION: Final = 1
"""Raised with every change to pixels, labels, boxes, reports or gaze of the same settings."""


class Shot(NamedTuple):
    """One image to make: patient and study count from 0 (a tuple, for a plan of millions)."""

    patient: int
    study: int
    view: str


class SyntheticSource:
    """Parametric chests, several studies a patient, frontal and lateral views of the same body.

    Patient i is a function of (seed, i) and the settings other than `patients`, so a larger set
    begins with the smaller one, and any part can be made in any process.

    patients: how many. seed: of everything. size: pixels a side. max_studies: most studies of a
    patient (the fewest is 1). lateral_fraction: share of the upright studies with a lateral view.
    portable_fraction: share of the studies with an AP view made at the bedside instead of a PA.
    unlabelled_fraction: share of the labels given as unknown.

    Raises ValueError, naming the argument.
    """

    labels: tuple[str, ...] = LABELS
    version: Final = VERSION

    def __init__(
        self,
        patients: int,
        *,
        seed: int = 0,
        size: int = 256,
        max_studies: int = 3,
        lateral_fraction: float = 0.4,
        portable_fraction: float = 0.25,
        unlabelled_fraction: float = 0.0,
    ) -> None:
        self.patients = whole("patients", patients, 1, 2**31 - 1)
        self.seed = whole("seed", seed, 0, 2**63 - 1)
        self.size = whole("size", size, 32, 4096)
        self.max_studies = whole("max_studies", max_studies, 1, 100)
        self.lateral_fraction = share("lateral_fraction", lateral_fraction)
        self.portable_fraction = share("portable_fraction", portable_fraction)
        self.unlabelled_fraction = share("unlabelled_fraction", unlabelled_fraction)

    def plan(self) -> tuple[list[PlannedStudy], list[Rejection]]:
        """Every study, patient after patient; nothing is ever refused."""
        count = 1 + (self.max_studies * self._uniform(0) ** 2).astype(np.int64)
        portable = [self._uniform(1 + 2 * k) for k in range(self.max_studies)]
        lateral = [self._uniform(2 + 2 * k) for k in range(self.max_studies)]
        bedside = np.stack(portable, axis=1) < self.portable_fraction
        second = (np.stack(lateral, axis=1) < self.lateral_fraction) & ~bedside
        planned = []
        for patient, (n, ap, two) in enumerate(
            zip(count.tolist(), bedside.tolist(), second.tolist(), strict=True)
        ):
            name = f"synthetic-{self.seed}-{patient}"
            for study in range(n):
                front = Shot(patient, study, "AP" if ap[study] else "PA")
                side = (Shot(patient, study, "LATERAL"),) if two[study] else ()
                planned.append(PlannedStudy(name, f"{name}-{study}", (front, *side)))
        return planned, []

    def read(self, study: PlannedStudy) -> ReadStudy:
        """Render the views of one study and write its report."""
        shots: tuple[Shot, ...] = study.images
        patient, number = shots[0].patient, shots[0].study
        body = grow_body(self._rng(patient, _BODY))
        course = courses(self._rng(patient, _COURSE), number + 1)
        findings, before = course[number], course[number - 1] if number else None
        rng = self._rng(patient, _STUDY, number)
        portable = shots[0].view == "AP"
        breath = float(rng.uniform(-0.3, 2.2)) + (1.2 if portable else 0.0)
        devices = place_devices(body, rng, portable)
        chest = build_chest(body, breath, findings, devices)
        images = tuple(
            self._render(chest, shot.view, self._rng(patient, _IMAGE, number, ordinal))
            for ordinal, shot in enumerate(shots)
        )
        views = [shot.view for shot in shots]
        words = self._rng(patient, _REPORT, number)
        return ReadStudy(images, write_report(words, findings, before, views, devices.names))

    def _render(self, chest: Chest, view: str, rng: np.random.Generator) -> Radiograph:
        camera = draw_camera(rng, chest.body, view, self.size)
        shadow = cast(chest, camera)
        # the letter stands on the side that it names: the patient's right is the image's left
        letter = "L" if view == "LATERAL" or rng.random() < 0.5 else "R"
        across = float(rng.uniform(0.05, 0.11))
        across = 1.0 - across if letter == "L" else across
        add_marker(shadow.attenuation, camera, letter, (across, float(rng.uniform(0.05, 0.2))))
        pixels = expose(shadow.attenuation, draw_exposure(rng, view == "AP"))
        drawn = [box_of(finding, part) for finding, part in shadow.findings]
        boxes = tuple(box for box in drawn if box is not None)
        fixations = look(rng, chest, camera, boxes)
        return Radiograph(pixels, view, 8, self._label(chest.findings, rng), boxes, fixations)

    def _label(
        self, findings: tuple[Finding, ...], rng: np.random.Generator
    ) -> dict[str, int | None]:
        present = {finding.label for finding in findings}
        unknown = rng.random(len(LABELS)) < self.unlabelled_fraction
        return {
            label: None if hidden else int(label in present)
            for label, hidden in zip(LABELS, unknown, strict=True)
        }

    def _rng(
        self, patient: int, purpose: int, study: int = 0, ordinal: int = 0
    ) -> np.random.Generator:
        return np.random.default_rng([self.seed, patient, purpose, study, ordinal])

    def _uniform(self, slot: int) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for every patient."""
        return uniform("synthetic", self.seed, slot, self.patients)


def draw_camera(rng: np.random.Generator, body: Body, view: str, size: int) -> Camera:
    """Draw how one picture of a body is taken: framing, rotation, distance."""
    portable = view == "AP"
    field = body.width * rng.uniform(2.5, 3.3) * (1.12 if portable else 1.05)
    if view == "LATERAL":
        field = max(field, 2.9 * body.depth)
    return Camera(
        view=view,
        size=size,
        pitch=field / size,
        turn=float(rng.normal(0.0, 0.07 if portable else 0.04)),
        shift=(float(rng.normal(0.0, 1.2)), float(rng.normal(0.0, 1.2))),
        beam=0.5 * body.height - 1.0,
        distance=105.0 if portable else 180.0,
    )
