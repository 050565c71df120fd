"""The solids that findings add to a lung: nodules, patches, bands and clouds."""

from __future__ import annotations

import numpy as np

from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.lung import Lung
from lightning_rad.sharding.sources.synthetic.solids import Array, Ellipsoid


def place_lesion(finding: Finding, lung: Lung) -> tuple[Ellipsoid, ...]:
    """The solids of one finding; none for those that are no lesion of the lung itself."""
    shapes = {
        "nodule": _nodule,
        "consolidation": _consolidation,
        "atelectasis": _plates,
        "edema": _haze,
    }
    if finding.label not in shapes:
        return ()
    rng = np.random.default_rng([finding.detail, 1])
    floor = float(lung.dome.y[0])
    return shapes[finding.label](finding, lung, floor, rng)


def _spot(finding: Finding, lung: Lung, floor: float, clear: float) -> Array:
    """A point of the lung at the finding's place, `clear` cm from its walls and off the heart."""
    height, across, along = finding.place
    y = max(height * floor, clear + 1.5)
    cx, cz, a, d = (float(value) for value in lung.space.at(np.array(y)))
    inner = max(_border(lung, y) + 0.6 * clear, abs(cx) - a + clear)
    outer = abs(cx) + a - clear
    x = (inner + outer) / 2 if inner > outer else inner + (outer - inner) * across
    reach = d * np.sqrt(max(1.0 - ((x - abs(cx)) / a) ** 2, 0.1)) - clear
    return np.array([finding.side * x, y, cz + max(reach, 0.0) * (2.0 * along - 1.0)])


def _border(lung: Lung, y: float) -> float:
    """How far the shadow of heart and mediastinum reaches to this side at height y, in |x|."""
    heart, middle = lung.middle
    mid, _, half, _ = middle.at(np.array(y))
    border = float(lung.side * mid + half)
    spread, tall = heart.spread, np.sqrt(heart.spread[1, 1])
    drop = (y - heart.centre[1]) / tall
    if abs(drop) < 1.0:
        lean = spread[0, 1] / tall
        wide = np.sqrt((spread[0, 0] - lean**2) * (1.0 - drop**2))
        border = max(border, float(lung.side * (heart.centre[0] + lean * drop) + wide))
    return border


def nodule_radius(finding: Finding) -> float:
    """Mean radius of a nodule in cm."""
    return 1.15 + 0.35 * finding.grade


def _nodule(
    finding: Finding, lung: Lung, floor: float, rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    radius = nodule_radius(finding)
    axes = radius * np.diag(rng.uniform(0.88, 1.12, 3))
    return (Ellipsoid(_spot(finding, lung, floor, radius + 0.3), axes, softness=0.15),)


def _consolidation(
    finding: Finding, lung: Lung, floor: float, rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    """A cluster of soft lumps: a patch with an uneven edge."""
    reach = 2.4 + 1.6 * finding.grade
    centre = _spot(finding, lung, floor, 0.9 * reach)
    lumps = []
    for _ in range(6):
        size = reach * rng.uniform(0.55, 0.95)
        offset = rng.normal(0.0, 0.38 * reach, 3)
        lumps.append(Ellipsoid(centre + offset, np.diag(size * rng.uniform(0.8, 1.2, 3)), 1.0))
    return tuple(lumps)


def _plates(
    finding: Finding, lung: Lung, floor: float, rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    """Thin bands of airless lung above the dome."""
    bands = []
    for band in range(2 + (finding.grade > 0.5)):
        y = floor - 1.6 - 1.9 * band
        cx, cz, a, d = (float(value) for value in lung.space.at(np.array(y)))
        tilt = rng.uniform(-0.35, 0.35)
        long = 0.55 * a * rng.uniform(0.8, 1.1)
        axes = np.array(
            [
                [long * np.cos(tilt), long * np.sin(tilt), 0.0],
                [-0.75 * np.sin(tilt), 0.75 * np.cos(tilt), 0.0],
                [0.0, 0.0, 0.42 * d],
            ]
        )
        x = cx + finding.side * a * rng.uniform(0.05, 0.3)
        bands.append(Ellipsoid(np.array([x, y, cz]), axes, softness=0.3))
    return tuple(bands)


def _haze(
    finding: Finding, lung: Lung, floor: float, rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    """Perihilar clouds, half of the bat's wings."""
    clouds = []
    for _ in range(9):
        y = floor * rng.uniform(0.36, 0.80)
        cx, cz, a, d = (float(value) for value in lung.space.at(np.array(y)))
        x = cx + finding.side * a * rng.uniform(-0.5, 0.25)
        size = (
            (0.8 + 0.4 * finding.grade)
            * rng.uniform(0.9, 1.3)
            * np.array([0.42 * a, 0.14 * floor, 0.45 * d])
        )
        clouds.append(Ellipsoid(np.array([x, y, cz + 0.1 * d]), np.diag(size), softness=1.5))
    return tuple(clouds)
