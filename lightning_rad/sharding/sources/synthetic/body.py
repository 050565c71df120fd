"""One patient's build, and the organs that it implies at one breath."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_rad.sharding.sources.synthetic.solids import (
    LEFT,
    RIGHT,
    Array,
    Ellipsoid,
    Stack,
    bullet,
    stack,
)


@dataclass(frozen=True)
class Body:
    """What stays the same over a patient's studies; lengths in cm.

    width: half the inner width of the rib cage. height: apex to the lowest recess of the lungs.
    depth: half the inner depth. fat: thickness of the soft tissue around the cage. ratio: width of
    the healthy heart over that of the cage. apex: angle of the heart's long axis below the
    horizontal, in radians. dome: height of the right diaphragm at a full breath. lung: attenuation
    of lung tissue as a share of water's. detail: seed of vessels and other small things.
    """

    female: bool
    width: float
    height: float
    depth: float
    fat: float
    ratio: float
    apex: float
    dome: float
    knob: float
    lung: float
    bone: float
    scoliosis: float
    rib_drop: float
    breast: float
    detail: int


def grow_body(rng: np.random.Generator) -> Body:
    """Draw one patient's build."""
    female = bool(rng.random() < 0.5)
    size = rng.normal(0.95 if female else 1.03, 0.05)
    height = 26.5 * size * rng.uniform(0.92, 1.08)
    return Body(
        female=female,
        width=13.2 * size * rng.uniform(0.93, 1.07),
        height=height,
        depth=9.0 * size * rng.uniform(0.88, 1.15),
        fat=0.8 + float(rng.gamma(2.0, 0.7)),
        ratio=rng.uniform(0.39, 0.475),
        apex=rng.uniform(0.45, 0.95),
        dome=height * rng.uniform(0.72, 0.79),
        knob=rng.uniform(0.2, 1.5),
        lung=rng.uniform(0.2, 0.32),
        bone=rng.uniform(0.7, 1.25),
        scoliosis=rng.normal(0.0, 0.6),
        rib_drop=rng.uniform(0.8, 1.25),
        breast=float(rng.uniform(0.3, 1.0)) if female else 0.0,
        detail=int(rng.integers(2**31)),
    )


def cage_profile(body: Body, t: Array) -> tuple[Array, Array, Array]:
    """Lateral edge (x), half-depth and depth centre of the rib cage's inside; t is y / height."""
    t = np.clip(t, 0.0, 1.0)
    bell = np.sqrt(1.0 - (1.0 - t) ** 3.0)
    lateral = body.width * (0.40 + 0.60 * bell) * (1.0 - 0.05 * np.maximum(t - 0.75, 0.0) / 0.25)
    depth = body.depth * (0.12 + 0.88 * np.sqrt(1.0 - (1.0 - t) ** 2.2))
    return lateral, depth, -2.2 + 2.2 * np.minimum(t / 0.6, 1.0)


def lung_stack(body: Body, side: int) -> Stack:
    """The space a lung can fill, before heart, mediastinum and diaphragm take their share."""

    def profile(t: Array) -> tuple[Array, ...]:
        lateral, depth, centre = cage_profile(body, t)
        top, recess = np.minimum(t / 0.16, 1.0), np.clip((t - 0.86) / 0.14, 0.0, 1.0)
        cap = np.sqrt(np.clip(1.0 - (1.0 - top) ** 2, 0.0, 1.0) * (1.0 - recess**3))
        medial = body.width * (0.30 - 0.18 * np.minimum(t / 0.3, 1.0))
        return (
            side * (lateral + medial) / 2,
            centre,
            (lateral - medial) / 2 * cap,
            depth * cap,
        )

    return stack(0.0, body.height, profile, exponent=2.3)


def dome_level(body: Body, side: int, breath: float) -> float:
    """Height of a diaphragm's top; breath in cm, 0 at a full one, the right dome stands higher."""
    return body.dome - breath + (1.3 if side == LEFT else 0.0)


def diaphragm(body: Body, side: int, breath: float) -> Stack:
    """What lies under one dome."""
    tip = dome_level(body, side, breath)
    return bullet(
        tip,
        max(0.55 * (body.height - tip), 4.5) * 1.9,
        (side * 0.50 * body.width, 1.2),
        (0.60 * body.width, 1.12 * body.depth),
    )


def heart(body: Body, ratio: float, breath: float) -> Ellipsoid:
    """The heart, scaled so that its width is `ratio` of the inner width of the rib cage."""
    down, forward = np.sin(body.apex), 0.45
    long = np.array([np.cos(body.apex), down, forward])
    long /= np.linalg.norm(long)
    back = np.cross(long, [0.0, 1.0, 0.0])
    back /= np.linalg.norm(back)
    across = np.cross(back, long)
    axes = np.stack([1.35 * long, 0.95 * across, 0.9 * back])
    half_width = ratio * body.width
    # an enlarged heart grows mostly sideways
    usual = body.width * np.sqrt(0.43 * ratio)
    axes = axes * (usual / np.sqrt((axes.T @ axes)[0, 0]))
    axes[:, 0] *= half_width / usual
    half_height = float(np.sqrt((axes.T @ axes)[1, 1]))
    right_border = 0.28 * body.width + 0.25 * (half_width - 0.42 * body.width)
    level = dome_level(body, LEFT, breath) - half_height + 1.6
    return Ellipsoid(np.array([half_width - right_border, level, 0.26 * body.depth]), axes)


def mediastinum(body: Body, breath: float) -> Stack:
    """Great vessels and what else lies between the lungs, with the aortic knob on the left."""
    bottom = dome_level(body, RIGHT, breath) + 3.0

    def profile(t: Array) -> tuple[Array, ...]:
        y = -4.0 + (bottom + 4.0) * t
        knob = body.knob * np.exp(-(((y - 0.24 * body.height) / 1.5) ** 2))
        waist = 0.5 * np.exp(-(((y - 0.36 * body.height) / 1.6) ** 2))
        half = 0.195 * body.width + 0.35 * np.exp(-t * 4) + (knob + waist) / 2
        return (knob + waist) / 2, np.full_like(t, -0.8), half, np.full_like(t, 0.52 * body.depth)

    return stack(-4.0, bottom, profile)


def torso(body: Body, arms_up: bool) -> Stack:
    """The skin: neck, shoulders, chest and upper abdomen; no arms; up, they add less."""
    bulk = 0.5 if arms_up else 5.2

    def profile(t: Array) -> tuple[Array, ...]:
        y = -14.0 + (body.height + 34.0) * t
        rise = 1.0 / (1.0 + np.exp(-(y + 3.6) / 1.1))
        shoulder = bulk * np.exp(-(((y - 3.0) / 6.5) ** 2))
        chest = body.width + 1.4 + body.fat
        half = 6.0 + (chest + shoulder - 6.0) * rise
        deep = 6.0 + (body.depth + 1.6 + body.fat - 6.0) / (1.0 + np.exp(-(y - 0.5) / 3.0))
        return np.zeros_like(t), np.full_like(t, -0.6), half, deep

    return stack(-14.0, body.height + 20.0, profile, exponent=2.6)


def soft_parts(body: Body, breath: float) -> list[tuple[Ellipsoid, float]]:
    """Breasts, and the stomach's gas, with their attenuation in units of water's."""
    parts: list[tuple[Ellipsoid, float]] = []
    size = (4.0 + 1.2 * body.fat**0.5) * body.breast
    if body.female:
        for side in (RIGHT, LEFT):
            centre = np.array(
                [side * 0.58 * body.width, 0.72 * body.height, body.depth + body.fat - 1.5]
            )
            axes = np.diag([1.2 * size + 1.5, 1.15 * size + 1.0, 0.9 * size])
            parts.append((Ellipsoid(centre, axes, softness=0.3), 0.9))
    rng = np.random.default_rng([body.detail, 1])
    gas = rng.uniform(1.2, 3.2)
    centre = np.array(
        [rng.uniform(4.0, 7.5), dome_level(body, LEFT, breath) + gas * 0.6 + 1.2, 1.5]
    )
    parts.append((Ellipsoid(centre, np.diag([gas * 1.3, gas * 0.6, gas])), -0.95))
    return parts
