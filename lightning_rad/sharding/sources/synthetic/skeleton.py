"""Bones, airway, lung vessels and devices: the thin things, as tubes and small solids."""

from __future__ import annotations

import numpy as np

from lightning_rad.sharding.sources.synthetic.body import Body, cage_profile
from lightning_rad.sharding.sources.synthetic.solids import (
    LEFT,
    RIGHT,
    Array,
    Ellipsoid,
    Stack,
    Tube,
    bezier,
    stack,
    tube,
)

RIBS = 11
SIDES = (RIGHT, LEFT)


def spine_line(body: Body, y: Array) -> tuple[Array, Array]:
    """x and z of the centre of the vertebral bodies at the heights y."""
    bend = np.sin(np.pi * (y + 8.0) / (body.height + 16.0))
    return body.scoliosis * np.sin(2.0 * np.pi * y / body.height), -0.62 * body.depth - 2.2 * bend


def vertebrae(body: Body) -> tuple[Stack, float]:
    """The vertebral bodies, waisted between their discs, and the distance from one to the next."""
    pitch = body.height / 11.5

    def profile(t: Array) -> tuple[Array, ...]:
        y = -12.0 + (body.height + 26.0) * t
        x, z = spine_line(body, y)
        half = 1.45 + 0.45 * t
        return x, z, half, half * 0.95

    return stack(-12.0, body.height + 14.0, profile, exponent=3.0), pitch


def sternum(body: Body) -> Stack:
    """The breast bone, seen in profile on the lateral view."""

    def profile(t: Array) -> tuple[Array, ...]:
        y = 3.0 + (0.62 * body.height - 3.0) * t
        _, depth, centre = cage_profile(body, y / body.height)
        half = 1.7 - 0.5 * np.sin(np.pi * t)
        return np.zeros_like(t), centre + depth + 0.6, half, np.full_like(t, 0.55)

    return stack(3.0, 0.62 * body.height, profile)


def ribs(body: Body) -> Tube:
    """The ribs of both sides, from the spine round the cage and down to where cartilage begins."""
    curves = []
    angle = np.linspace(0.16, 0.80 * np.pi, 90)
    for rib in range(RIBS):
        back = -2.2 + rib * body.height / 11.5
        drop = (3.2 + 6.3 * min(rib / 5.0, 1.0)) * body.rib_drop
        end = 0.72 * np.pi if rib < 8 else (0.72 - 0.09 * (rib - 7)) * np.pi
        phi = angle * end / angle[-1]
        y = back + drop * (phi / np.pi) ** 1.25 - 0.7 * np.sin(np.minimum(phi * 1.6, np.pi))
        lateral, depth, centre = cage_profile(body, (y + 2.6) / (body.height + 2.6))
        x = 0.75 * np.exp(-((phi / 0.3) ** 2)) + (lateral + 0.55) * np.sin(phi)
        z = centre - (depth + 0.6) * np.cos(phi)
        curves += [np.stack([side * x, y, z], axis=1) for side in SIDES]
    return tube(np.stack(curves), 0.62, 0.46 * body.bone, hollow=0.62)


def small_bones(body: Body) -> list[Tube]:
    """Clavicles, pedicles and spinous processes."""
    rng = np.random.default_rng([body.detail, 2])
    rise = rng.uniform(0.3, 2.4)
    clavicles = []
    for side in SIDES:
        inner = np.array([side * 1.9, 2.6, 0.35 * body.depth])
        outer = np.array([side * (body.width * 1.12), 1.6 - rise, -0.1 * body.depth])
        bow = (inner + outer) / 2 + np.array([0.0, 0.9, 1.6])
        clavicles.append(bezier(inner, bow, outer, 60))
    centres = np.arange(-9.0, body.height + 12.0, body.height / 11.5)
    x, z = spine_line(body, centres)
    line = np.linspace(0.0, 1.0, 8)[:, None]
    pieces = []
    for side in SIDES:
        start = np.stack([x + side * 1.15, centres - 0.5, z - 1.4], axis=1)
        pieces.append(start[:, None] + line * np.array([0.0, 0.0, -1.2]))
    start = np.stack([x, centres + 0.3, z - 3.0], axis=1)
    pieces.append(start[:, None] + line * np.array([0.0, 1.6, -1.8]))
    return [
        tube(np.stack(clavicles), 0.62, 0.44 * body.bone, hollow=0.55),
        tube(np.concatenate(pieces), 0.36, 0.24 * body.bone),
    ]


def scapulae(body: Body, abducted: float) -> list[Ellipsoid]:
    """The shoulder blades; abducted: cm that raised elbows move them off the lungs."""
    blades = []
    for side in SIDES:
        centre = np.array([side * (0.86 * body.width + abducted), 5.5, -body.depth - 0.8])
        axes = np.array([[side * 2.9, 1.4, 1.0], [-side * 2.2, 6.6, -0.6], [0.1, 0.0, 0.45]])
        blades.append(Ellipsoid(centre, axes))
    return blades


def airway(body: Body) -> Tube:
    """Trachea and main bronchi."""
    fork = np.array([0.1, 0.27 * body.height, -1.6])
    top = np.array([0.0, -13.0, 0.8])
    curves = [bezier(top, np.array([0.0, 0.0, 0.2]), fork, 60)]
    for side in SIDES:
        end = fork + np.array([side * 3.6, 2.2 if side == RIGHT else 2.8, -0.2])
        curves.append(bezier(fork, (fork + end) / 2 + np.array([0.0, 0.3, 0.0]), end, 60))
    return tube(np.stack(curves), 0.85, -0.19)


def hilum(body: Body, side: int) -> Array:
    """Where a lung's vessels enter it."""
    return np.array([side * 0.25 * body.width, (0.37 - 0.02 * side) * body.height, -0.6])


def vessels(body: Body, lung: Stack, floor: float, side: int) -> list[Tube]:
    """One lung's vascular tree: three generations that fan out from the hilum and taper.

    floor: lowest height they reach.
    """
    rng = np.random.default_rng([body.detail, 3, side + 1])
    root = hilum(body, side)
    tubes, starts = [], np.repeat(root[None], 11, axis=0)
    reach = np.linspace(-0.6, 0.97, 11)
    for radius, children, samples in ((0.36, 4, 30), (0.21, 3, 20), (0.13, 0, 14)):
        n = len(starts)
        t = 0.5 + 0.5 * np.repeat(reach, n // 11) * rng.uniform(0.75, 1.0, n)
        y = 1.0 + (floor - 1.0) * t + rng.normal(0.0, 0.8, n)
        angle, ring = rng.uniform(0.0, 2.0 * np.pi, n), np.sqrt(rng.uniform(0.15, 0.9, n))
        cx, cz, a, d = lung.at(np.clip(y, 1.0, floor))
        ends = np.stack([cx + a * ring * np.cos(angle), y, cz + d * ring * np.sin(angle)], axis=1)
        share = 1.0 if children == 4 else 0.5
        ends = starts + share * (ends - starts)
        bow = (starts + ends) / 2 + rng.normal(0.0, 0.5, (n, 3)) + np.array([0.0, -0.5, 0.0])
        curves = bezier(starts, bow, ends, samples)
        tubes.append(tube(curves, radius, 0.2))
        along = rng.integers(samples // 3, samples, (n, max(children, 1)))
        starts = curves[np.arange(n)[:, None], along].reshape(-1, 3)
    return tubes
