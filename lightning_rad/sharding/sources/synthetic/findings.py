"""What a patient has at each study: drawn from stationary prevalences, placed in the lungs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lightning_rad.sharding.sources.synthetic.solids import CENTRAL, LEFT, RIGHT

LABELS: Final = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "effusion",
    "nodule",
    "pneumothorax",
)
"""The findings, in the order of every label list."""

ZONES: Final = ("upper", "mid", "lower")

WELL: Final = 0.22
"""Share of patients who never have any finding."""

PRESENT: Final = {
    "atelectasis": 0.40,
    "cardiomegaly": 0.34,
    "consolidation": 0.36,
    "edema": 0.32,
    "effusion": 0.44,
    "nodule": 0.34,
    "pneumothorax": 0.40,
}
"""Chance of a finding at a study of the others, before what cannot be told apart is dropped."""

LASTING: Final = {"cardiomegaly": 1.0, "nodule": 1.0}
"""Chance that a finding is still there at the next study; 0.5 where not listed."""

BOTH_SIDES: Final = {"edema": 1.0, "effusion": 0.3}
"""Chance that a finding takes both sides; 0 where not listed."""

FILLS_A_SIDE: Final = frozenset({"atelectasis", "effusion", "pneumothorax"})
FOCAL: Final = frozenset({"consolidation", "nodule"})


@dataclass(frozen=True)
class Finding:
    """One finding on one side.

    side: RIGHT, LEFT or CENTRAL. zone: where in the lung, "" where that says nothing. grade: 0 the
    mildest, 1 the most severe. place: height as a share of the lung's, two numbers in [0, 1) for
    the position within that slice. detail: seed of its texture.
    """

    label: str
    side: int
    zone: str
    grade: float
    place: tuple[float, float, float]
    detail: int


def courses(rng: np.random.Generator, studies: int) -> list[tuple[Finding, ...]]:
    """The findings at each of a patient's studies; the first k do not depend on how many follow."""
    well = rng.random() < WELL
    course: list[tuple[Finding, ...]] = []
    before: tuple[Finding, ...] = ()
    for _ in range(studies):
        draw = np.random.default_rng(rng.integers(2**62))
        if not well:
            before = _next(draw, before, first=not course)
        course.append(before)
    return course


def _next(
    rng: np.random.Generator, before: tuple[Finding, ...], first: bool
) -> tuple[Finding, ...]:
    """The findings of the study that follows `before`, each stationary in its prevalence."""
    kept: list[Finding] = []
    fresh: list[str] = []
    for label in LABELS:
        old = [f for f in before if f.label == label]
        stays = LASTING.get(label, 0.5)
        onset = PRESENT[label] * (1.0 if first else (1.0 - stays) / (1.0 - PRESENT[label]))
        luck = rng.random()
        if old and luck < stays:
            kept += [replace(f, grade=_evolve(f, rng)) for f in old]
        elif not old and luck < onset:
            fresh.append(label)
    for label in rng.permutation(fresh):
        kept += _onset(str(label), rng, kept)
    return tuple(sorted(kept, key=lambda f: (f.label, f.side)))


def _evolve(finding: Finding, rng: np.random.Generator) -> float:
    drift = 0.0 if finding.label in LASTING else rng.normal(0.0, 0.25)
    return float(np.clip(finding.grade + drift, 0.0, 1.0))


def _onset(label: str, rng: np.random.Generator, others: list[Finding]) -> list[Finding]:
    """A new finding on the side or sides where it can be told from the others, or nothing."""
    if label == "cardiomegaly":
        return [_draw(label, CENTRAL, "", rng)]
    sides = [int(s) for s in rng.permutation([RIGHT, LEFT])]
    wanted = 2 if rng.random() < BOTH_SIDES.get(label, 0.0) else 1
    found: list[Finding] = []
    for side in sides:
        zone = str(rng.choice(ZONES)) if label in FOCAL else ""
        new = _draw(label, side, zone, rng)
        if len(found) < wanted and all(_compatible(new, other) for other in others):
            found.append(new)
    return found


def _draw(label: str, side: int, zone: str, rng: np.random.Generator) -> Finding:
    base = ZONES.index(zone) / 3.0 if zone else 0.0
    height = 0.20 + 0.72 * (base + float(rng.uniform(0.05, 0.28)))
    place = (height, float(rng.random()), float(rng.random()))
    return Finding(label, side, zone, float(rng.random()), place, int(rng.integers(2**31)))


def _compatible(one: Finding, two: Finding) -> bool:
    """Whether two findings can be seen apart when they share a lung."""
    if one.side != two.side or CENTRAL in (one.side, two.side):
        return True
    labels = {one.label, two.label}
    if labels <= FILLS_A_SIDE or (labels & FOCAL and "pneumothorax" in labels):
        return False
    if labels <= FOCAL:
        return one.zone != two.zone
    return not (labels & {"effusion", "atelectasis"} and "lower" in (one.zone, two.zone))
