"""The bones of a knee as solids, each with its marrow, and what wear adds to them.

Centimetres in a frame of the knee's own: x towards the other knee (medial), y down from the tibial
plateau, z to the front; `Knee.placed` turns them into the patient's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from lightning_rad.sharding.sources.synthetic.knee.joint import LATERAL, MEDIAL, Build, Spur, Wear
from lightning_rad.sharding.sources.synthetic.solids import (
    Array,
    Convex,
    Ellipsoid,
    Stack,
    stack,
)

_ROOF: Final = -2.5
"""Height of the roof of the notch between the condyles."""


@dataclass(frozen=True)
class Bone:
    """outer: solids whose union is the bone. inner: those whose union is its marrow."""

    outer: tuple[Convex, ...]
    inner: tuple[Convex, ...]


@dataclass(frozen=True)
class Knee:
    """One knee at one visit. side: RIGHT or LEFT of the patient. flexion: tilt of the plateau."""

    build: Build
    wear: Wear
    side: int
    flexion: float

    def placed(self, solid: Convex) -> Convex:
        """A solid of the knee's frame in the patient's."""
        scale, medial = self.build.scale, -self.side
        if isinstance(solid, Stack):
            slices = scale * solid.slices * np.array([medial, 1.0, 1.0, 1.0])
            return replace(solid, y=scale * solid.y, slices=slices)
        mirror = scale * np.array([medial, 1.0, 1.0])
        return replace(solid, centre=solid.centre * mirror, axes=solid.axes * mirror)

    def point(self, x: float, y: float, z: float = 0.0) -> Array:
        """A point of the knee's frame in the patient's, [3]."""
        return self.build.scale * np.array([-self.side * x, y, z])


def femur(knee: Knee) -> Bone:
    """The shaft and two condyles, which end where the joint space begins."""

    def profile(t: Array) -> tuple[Array, ...]:
        y = -20.0 + (_ROOF + 20.0) * t
        flare = knee.build.flare * _step(y, -10.0, -4.0)
        x = knee.build.stance * (y + 3.0) + 0.1 * flare
        waist = _step(y, -3.6, _ROOF)
        depth = (1.5 + 1.0 * flare) * (1.0 - 0.5 * waist)
        return x, np.zeros_like(t), 1.45 + 2.2 * flare**1.6 - 1.6 * waist, depth

    shaft = stack(-20.0, _ROOF, profile)
    wall = 0.13 + 0.33 * (1.0 - _step(shaft.y, -11.0, -5.5))
    outer: list[Convex] = [shaft]
    inner: list[Convex] = [_hollow(shaft, wall, (0.0, 0.0))]
    for m in (MEDIAL, LATERAL):
        worn = knee.wear.deformity if m == knee.wear.worse else 0.0
        condyle = _condyle(knee.build, m, -knee.wear.space(m), worn)
        outer.append(condyle)
        inner.append(_hollow(condyle, np.full(len(condyle.y), 0.13), (0.0, 0.09)))
    return Bone(tuple(outer), tuple(inner))


def _condyle(build: Build, m: int, end: float, worn: float) -> Stack:
    """From the flare of the shaft to the joint space; its inner edge is one half of the notch."""
    top, turn = -5.8, 1.35 - 0.45 * worn

    def profile(t: Array) -> tuple[Array, ...]:
        y = top + (end - top) * t
        swell = _step(y, top, -2.9)
        outer = 2.7 * build.flare + (1.3 + 0.12 * (m == MEDIAL)) * swell
        inner = build.notch * np.sqrt(np.clip((y - _ROOF) / (end - _ROOF), 0.0, 1.0)) - 0.02
        inner -= 0.5 * (y < _ROOF)
        # a worn condyle is flattened
        below = np.clip((y - end + turn) / turn, 0.0, 1.0)
        rest = (1.0 - below ** (2.6 + 1.4 * worn)) ** (1.0 / (2.1 + 0.9 * worn))
        middle = (outer + inner) / 2 - 0.12 * below**2
        half = (outer - inner) / 2 * rest
        return m * middle, np.full_like(t, -0.8), half, 2.8 * np.sqrt(swell) * rest

    return stack(top, end, profile)


def tibia(knee: Knee) -> Bone:
    """The shaft, the plateau of each compartment and the two spines between them."""
    wear = knee.wear
    slip = _slip(wear)

    def profile(t: Array) -> tuple[Array, ...]:
        y = 0.3 + 19.7 * t
        taper = np.exp(-((y / (3.6 * knee.build.flare)) ** 1.35))
        x = slip * np.exp(-y / 2.0) - knee.build.stance * y - 0.15 * (1.0 - taper)
        return x, np.full_like(t, -0.3), 1.4 + 2.33 * taper, 1.5 + 0.9 * taper

    body = stack(0.3, 20.0, profile)
    wall = 0.12 + 0.36 * _step(body.y, 2.5, 9.0)
    outer: list[Convex] = [body]
    inner: list[Convex] = [_hollow(body, wall, (0.0, 0.0))]
    for m in (MEDIAL, LATERAL):
        sunk = wear.deformity if m == wear.worse else 0.0
        plateau = _plateau(m, slip, sunk)
        outer.append(plateau)
        # its marrow ends in the body's, so that no wall lies between them
        inner.append(_hollow(plateau, np.full(len(plateau.y), 0.12), (0.08, 0.0)))
        peak = 0.5 if m == MEDIAL else 0.4
        spine = Ellipsoid(
            np.array([slip + (0.42 + 0.1 * (m == LATERAL)) * m, 0.5, -0.2]),
            np.array([[0.34, 0.0, 0.0], [-0.12 * m, 0.5 + peak, 0.0], [0.0, 0.0, 0.9]]),
        )
        outer.append(spine)
        inner.append(replace(spine, axes=0.75 * spine.axes))
    mound = Ellipsoid(np.array([slip, 0.5, -0.2]), np.diag([1.3, 0.72, 1.9]))
    outer.append(mound)
    inner.append(replace(mound, axes=0.84 * mound.axes))
    return Bone(tuple(outer), tuple(inner))


def _plateau(m: int, slip: float, sunk: float) -> Stack:
    """One side of the plateau; sunk: 0 level, 1 its outer part has given way by 3 mm."""

    def profile(t: Array) -> tuple[Array, ...]:
        y = 2.2 * t
        corner = np.sqrt(np.maximum(1.0 - (np.maximum(0.5 - y, 0.0) / 0.5) ** 2, 0.0))
        rim = 3.28 + 0.5 * corner - 1.15 * t**2 - 1.6 * sunk * np.clip(1.0 - y / 0.33, 0.0, 1.0)
        start = np.full_like(t, 0.1)
        # it thins out into the body
        depth = 2.4 * np.sqrt(1.0 - t**2)
        return m * (start + rim) / 2 + slip, np.full_like(t, -0.3), (rim - start) / 2, depth

    return stack(0.0, 2.2, profile)


def plates(knee: Knee) -> tuple[Ellipsoid, ...]:
    """The dense bone under either plateau; a flexed knee shows its front and back edges apart."""
    c, s = np.cos(knee.flexion), np.sin(knee.flexion)
    slip = _slip(knee.wear)
    tilted = np.array([[1.55, 0.0, 0.0], [0.0, 0.07 * c, 0.07 * s], [0.0, -2.1 * s, 2.1 * c]])
    return tuple(
        Ellipsoid(np.array([slip + 2.0 * m, 0.1, -0.3]), tilted) for m in (MEDIAL, LATERAL)
    )


def _slip(wear: Wear) -> float:
    """How far in cm the tibia has slid off under the femur; to the side that is not worn."""
    return -0.35 * wear.worse * wear.deformity


def fibula(knee: Knee) -> Bone:
    """The thin bone behind and beside the tibia."""

    def profile(t: Array) -> tuple[Array, ...]:
        y = 1.3 + 18.7 * t
        head = np.exp(-(((y - 2.2) / 1.1) ** 2))
        cap = np.sqrt(np.clip(1.0 - (np.maximum(2.0 - y, 0.0) / 0.7) ** 2, 0.0, 1.0))
        half = cap * (0.55 + 0.42 * head)
        x = LATERAL * (knee.build.fibula - 0.35 * _step(y, 2.0, 8.0)) - knee.build.stance * y
        return x, np.full_like(t, -1.9), half, half

    outer = stack(1.3, 20.0, profile)
    wall = 0.11 + 0.14 * _step(outer.y, 3.0, 7.0)
    return Bone((outer,), (_hollow(outer, wall, (0.1, 0.0)),))


def patella(knee: Knee) -> Bone:
    """The knee cap, in front of the femur."""
    centre = np.array([-0.25, -3.3 - knee.build.patella, 3.9])
    half = knee.build.cap * np.array([1.95, 2.1, 0.8])
    outer = Ellipsoid(centre, np.diag(half))
    return Bone((outer,), (Ellipsoid(centre, np.diag(half - 0.07)),))


def spur(knee: Knee, spur: Spur) -> tuple[Ellipsoid, Ellipsoid]:
    """The base and the hooked tip of one osteophyte."""
    m, wear = spur.margin, knee.wear
    if spur.bone == "femur":
        root, towards = np.array([m * 3.58, -wear.space(m) - 0.62]), 0.5 + spur.turn
    else:
        root, towards = np.array([_slip(wear) + m * 3.55, 0.3]), -0.25 + spur.turn
    along = np.array([m * np.cos(towards), np.sin(towards)])
    # the tip turns towards the joint space
    turned = towards + (0.5 if spur.bone == "femur" else -0.5)
    hook = np.array([m * np.cos(turned), np.sin(turned)])
    base = _lobe(root + 0.25 * spur.length * along, along, 0.75 * spur.length, 0.36, spur.length)
    tip = _lobe(root + 0.8 * spur.length * along, hook, 0.4 * spur.length, 0.18, spur.length)
    return base, tip


def _lobe(centre: Array, along: Array, half: float, thick: float, length: float) -> Ellipsoid:
    across = np.array([-along[1], along[0]]) * (thick * length + 0.06)
    axes = np.array([[*(half * along), 0.0], [*across, 0.0], [0.0, 0.0, 0.7 + 0.8 * length]])
    return Ellipsoid(np.array([*centre, -0.3]), axes)


def whitening(knee: Knee) -> tuple[Ellipsoid, Ellipsoid]:
    """Soft clouds of denser bone below and above the worn compartment."""
    m, gap = knee.wear.worse, knee.wear.space(knee.wear.worse)
    x = m * 2.15
    below = Ellipsoid(np.array([x, 0.35, -0.3]), np.diag([1.7, 0.62, 2.0]), softness=0.7)
    above = Ellipsoid(np.array([x, -gap - 0.35, -0.6]), np.diag([1.5, 0.5, 2.0]), softness=0.7)
    return below, above


def _hollow(solid: Stack, wall: Array, ends: tuple[float, float]) -> Stack:
    """What is left of a stack without a wall of the given thickness [n] and at its ends."""
    top, bottom = float(solid.y[0]), float(solid.y[-1])
    share = (solid.y - top) / (bottom - top)
    slices = solid.slices.copy()
    slices[:, 2:] = np.maximum(slices[:, 2:] - wall[:, None], 0.0)
    return replace(solid, y=top + ends[0] + (bottom - top - sum(ends)) * share, slices=slices)


def _step(y: Array, start: float, end: float) -> Array:
    """0 before the start, 1 after the end, smooth between."""
    t = np.clip((y - start) / (end - start), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
