"""A body with its findings, at one breath: every solid and curve that a ray can meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_rad.sharding.sources.synthetic import body as anatomy
from lightning_rad.sharding.sources.synthetic import skeleton
from lightning_rad.sharding.sources.synthetic.body import Body
from lightning_rad.sharding.sources.synthetic.devices import Device
from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.solids import (
    LEFT,
    RIGHT,
    Array,
    Convex,
    Ellipsoid,
    Stack,
    Tube,
    bullet,
)


@dataclass(frozen=True)
class Lung:
    """One side of the chest.

    space: what the lung can fill. dome, middle: solids that take a share of it, the diaphragm and
    what lies between the lungs (heart, mediastinum). within: where the lung
    still is when something lies in its pleural space (pleura: the label of it), else None.
    """

    space: Stack
    dome: Stack
    middle: tuple[Ellipsoid, Stack]
    within: Stack | None
    pleura: str
    side: int

    @property
    def lacks(self) -> tuple[Convex, ...]:
        """Every solid that takes a share of the space."""
        return self.dome, *self.middle


@dataclass(frozen=True)
class Chest:
    """All that attenuates; lesions pair a finding with the solids that it adds to a lung."""

    body: Body
    lungs: tuple[Lung, Lung]
    heart: Ellipsoid
    lesions: tuple[tuple[Finding, tuple[Ellipsoid, ...]], ...]
    tubes: tuple[Tube, ...]
    device: Device
    breath: float
    findings: tuple[Finding, ...]


def build_chest(body: Body, breath: float, findings: Sequence[Finding], device: Device) -> Chest:
    """Put a body together. breath: cm by which the diaphragm stands above a full inspiration."""
    enlarged = [f for f in findings if f.label == "cardiomegaly"]
    ratio = 0.54 + 0.07 * enlarged[0].grade if enlarged else body.ratio
    heart = anatomy.heart(body, ratio, breath)
    middle = anatomy.mediastinum(body, breath)
    lungs = tuple(_lung(body, side, breath, findings, (heart, middle)) for side in (RIGHT, LEFT))
    tubes = [skeleton.ribs(body), *skeleton.small_bones(body), skeleton.airway(body)]
    for lung in lungs:
        floor = anatomy.dome_level(body, lung.side, breath)
        trees = skeleton.vessels(body, lung.space, floor, lung.side)
        tubes += [_inside(tree, lung) for tree in trees]
    lesions = tuple((f, _lesion(f, lungs[f.side > 0])) for f in findings if f.side)
    return Chest(
        body=body,
        lungs=(lungs[0], lungs[1]),
        heart=heart,
        lesions=tuple((f, solids) for f, solids in lesions if solids),
        tubes=(*tubes, *device.lines),
        device=device,
        breath=breath,
        findings=tuple(findings),
    )


def _lung(
    body: Body,
    side: int,
    breath: float,
    findings: Sequence[Finding],
    middle: tuple[Ellipsoid, Stack],
) -> Lung:
    here = {f.label: f for f in findings if f.side == side}
    space = anatomy.lung_stack(body, side)
    dome = anatomy.diaphragm(body, side, breath)
    pleura, within = "", None
    if "effusion" in here:
        pleura, within = "effusion", _above_fluid(body, side, dome, here["effusion"].grade)
    elif "pneumothorax" in here:
        pleura, within = "pneumothorax", _collapsed(body, side, here["pneumothorax"].grade)
    return Lung(space, dome, middle, within, pleura, side)


def _above_fluid(body: Body, side: int, dome: Stack, grade: float) -> Stack:
    """Where lung floats on an effusion: its bowl-shaped floor makes the meniscus."""
    level = float(dome.y[0]) + 2.4 - 6.0 * grade
    centre, half = 0.50 * body.width, 0.56 * body.width
    return bullet(level, -8.0, (side * centre, 0.4), (half, 1.10 * body.depth))


def _collapsed(body: Body, side: int, grade: float) -> Stack:
    """Where lung is left by a pneumothorax: drawn in from the apex and the lateral wall."""
    gap = 1.3 + 2.4 * grade
    medial, lateral = -0.25 * body.width, body.width - gap
    return bullet(
        1.6 + 3.0 * grade,
        9.0,
        (side * (lateral + medial) / 2, 0.0),
        ((lateral - medial) / 2, 2.2 * body.depth),
    )


def _inside(tree: Tube, lung: Lung) -> Tube:
    """The part of a vascular tree that runs through aerated lung."""
    keep = lung.space.contains(tree.points)
    for solid in lung.lacks:
        keep &= ~solid.contains(tree.points)
    if lung.within is not None:
        keep &= lung.within.contains(tree.points)
    return Tube(tree.points[keep], tree.length[keep], tree.radius, tree.density)


def _lesion(finding: Finding, lung: Lung) -> tuple[Ellipsoid, ...]:
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
