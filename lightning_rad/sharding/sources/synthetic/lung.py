"""One side of the chest: the space of a lung, and what takes a share of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_rad.sharding.sources.synthetic import body as anatomy
from lightning_rad.sharding.sources.synthetic.body import Body
from lightning_rad.sharding.sources.synthetic.findings import Finding
from lightning_rad.sharding.sources.synthetic.solids import Convex, Ellipsoid, Stack, bullet


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


def make_lung(
    body: Body,
    side: int,
    breath: float,
    findings: Sequence[Finding],
    middle: tuple[Ellipsoid, Stack],
) -> Lung:
    """One side of a body at one breath, with what its findings put in the pleural space."""
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
