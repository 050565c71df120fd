"""What a knee has: its build, and how worn it is, from which the grade can be told.

Kellgren and Lawrence (Annals of the Rheumatic Diseases 16, 1957): 0 none; 1 doubtful narrowing,
possible lipping; 2 definite osteophytes, possible narrowing; 3 several osteophytes, definite
narrowing, some sclerosis, possible deformity; 4 large osteophytes, marked narrowing, severe
sclerosis, definite deformity. Neighbouring grades overlap, as they do for readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

GRADES: Final = 5

PREVALENCE: Final = (0.36, 0.17, 0.24, 0.15, 0.08)
"""Share of the knees of each grade, at every visit: a knee keeps its grade."""

ALIKE: Final = 0.6
"""Correlation of what both knees of a patient are graded by."""

SPACE: Final = (0.52, 0.46, 0.38, 0.22, 0.05)
"""Width in cm of the narrower compartment's space, its mean for each grade."""

LATERAL_SHARE: Final = 0.25
"""Share of the knees that wear in the lateral compartment."""

DEFINITE: Final = 0.22
"""Length in cm from which an osteophyte is definite, and gets a box."""

NARROWED: Final = 0.32
"""Width in cm below which a space is definitely narrowed, and gets a box."""

BONES: Final = ("femur", "tibia")
MEDIAL, LATERAL = 1, -1
"""Sides of a knee; the sign is that of the coordinate that grows towards the other knee."""

_SPURS: Final = ((0, 0), (0, 1), (1, 3), (3, 4), (4, 4))
"""Fewest and most margins with an osteophyte, for each grade."""
_LENGTH: Final = ((0.0, 0.0), (0.10, 0.19), (0.26, 0.46), (0.40, 0.62), (0.55, 0.85))
_SCLEROSIS: Final = ((0.0, 0.1), (0.0, 0.2), (0.1, 0.4), (0.4, 0.75), (0.7, 1.1))
_DEFORMITY: Final = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.3), (0.5, 1.0))


@dataclass(frozen=True)
class Build:
    """What both knees of a patient share, at every visit.

    scale: of all bones. bone: mineral, 1 is usual. flesh: half-width of the leg at the joint in cm.
    fat: share of it outside of the muscle. stance: slope of the shafts against each other (bow
    legs above 0), in radians. flare: width of the bones near the joint against their shafts, 1 is
    usual. notch: half-width in cm of the notch between the condyles. fibula: cm of its head from
    the middle. patella: cm by which the knee cap stands higher than usual. cap: its size, 1 is
    usual. detail: seed of the trabeculae.
    """

    scale: float
    bone: float
    flesh: float
    fat: float
    stance: float
    flare: float
    notch: float
    fibula: float
    patella: float
    cap: float
    detail: int


@dataclass(frozen=True)
class Spur:
    """An osteophyte: on which bone, at which margin, how long in cm, and how it turns."""

    bone: str
    margin: int
    length: float
    turn: float


@dataclass(frozen=True)
class Wear:
    """How worn one knee is.

    grade: 0 to 4. worse: the compartment that wears, MEDIAL or LATERAL. spaces: width in cm of the
    medial and of the lateral joint space. sclerosis: whitening of the bone along the worse one,
    about 1 where severe. deformity: 0 to 1.
    """

    grade: int
    worse: int
    spaces: tuple[float, float]
    spurs: tuple[Spur, ...]
    sclerosis: float
    deformity: float

    def space(self, compartment: int) -> float:
        """Width in cm of a compartment's space."""
        return self.spaces[compartment == LATERAL]


def draw_build(rng: np.random.Generator) -> Build:
    """Draw one patient's build; nothing of it depends on any grade."""
    return Build(
        scale=rng.choice([0.93, 1.03]) * float(np.exp(rng.normal(0.0, 0.05))),
        bone=rng.uniform(0.75, 1.25),
        flesh=rng.uniform(5.0, 8.2),
        fat=rng.uniform(0.08, 0.3),
        stance=float(rng.normal(0.0, 0.06)),
        flare=float(np.clip(rng.normal(1.0, 0.035), 0.92, 1.08)),
        notch=rng.uniform(0.75, 1.2),
        fibula=rng.uniform(2.75, 3.55),
        patella=float(rng.normal(0.0, 0.5)),
        cap=rng.uniform(0.85, 1.1),
        detail=int(rng.integers(2**31)),
    )


def draw_grades(rng: np.random.Generator) -> tuple[int, int]:
    """Grades of the right and of the left knee, more alike than those of two patients."""
    common, own = rng.standard_normal(), rng.standard_normal(2)
    severity = np.sqrt(ALIKE) * common + np.sqrt(1.0 - ALIKE) * own
    bounds = [NormalDist().inv_cdf(sum(PREVALENCE[: k + 1])) for k in range(GRADES - 1)]
    right, left = np.searchsorted(bounds, severity).tolist()
    return right, left


def draw_wear(rng: np.random.Generator, grade: int, visit: int) -> Wear:
    """One knee at a visit (0 the first): its grade stays, what makes it grows a little."""
    worse = LATERAL if rng.random() < LATERAL_SHARE else MEDIAL
    own = float(np.clip(rng.standard_normal(), -2.0, 2.0))
    width = max(SPACE[grade] + 0.035 * own - 0.012 * visit * (grade > 0), 0.01)
    other = max(SPACE[0] + 0.03 * float(rng.standard_normal()), width)
    low, high = _SPURS[grade]
    many = int(rng.integers(low, high + 1))
    places = [(bone, margin) for bone in BONES for margin in (MEDIAL, LATERAL)]
    # the worse compartment's margins come first
    order = sorted(rng.permutation(4).tolist(), key=lambda k: places[k][1] != worse)
    growth = 1.0 + 0.04 * min(visit, 3)
    spurs = []
    for bone, margin in [places[k] for k in order[:many]]:
        length = growth * float(rng.uniform(*_LENGTH[grade]))
        spurs.append(Spur(bone, margin, length, float(rng.normal(0.0, 0.2))))
    return Wear(
        grade=grade,
        worse=worse,
        spaces=(width, other) if worse == MEDIAL else (other, width),
        spurs=tuple(spurs),
        sclerosis=float(rng.uniform(*_SCLEROSIS[grade])),
        deformity=float(rng.uniform(*_DEFORMITY[grade])),
    )
