"""What a knee takes from every ray, and the part of it that each osteophyte is responsible for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from lightning_rad.sharding.sources.synthetic.attenuation import WATER
from lightning_rad.sharding.sources.synthetic.knee import bones
from lightning_rad.sharding.sources.synthetic.knee.bones import Bone, Knee
from lightning_rad.sharding.sources.synthetic.knee.joint import Spur
from lightning_rad.sharding.sources.synthetic.projection import (
    Camera,
    Interval,
    Map,
    deposit,
    interval,
    meet,
    path,
    without,
)
from lightning_rad.sharding.sources.synthetic.solids import Array, Convex, Tube, stack

CORTEX: Final = 0.34
SPONGE: Final = 0.11
"""Attenuation per cm of compact and of spongy bone above that of the soft tissue in its place."""


@dataclass(frozen=True)
class Shadow:
    """attenuation: [H, W] along every ray. spurs: with each osteophyte, what it alone adds."""

    attenuation: Map
    spurs: tuple[tuple[Spur, Map], ...]


def cast(knee: Knee, camera: Camera, metal: Sequence[Tube] = ()) -> Shadow:
    """The shadow of a knee for one position of tube and detector. metal: screws, away from it."""
    total = flesh(knee, camera)
    mineral = knee.build.bone
    grain = trabeculae(knee.build.detail, camera)
    for bone in (bones.femur(knee), bones.tibia(knee), bones.fibula(knee), bones.patella(knee)):
        total += mineral * _bone(knee, bone, camera, grain)
    for plate in bones.plates(knee):
        total += 0.12 * mineral * path(knee.placed(plate), camera)
    for cloud in bones.whitening(knee):
        total += 0.2 * knee.wear.sclerosis * mineral * path(knee.placed(cloud), camera)
    spurs: list[tuple[Spur, Map]] = []
    whole = [interval(s, camera) for s in _outer(knee)] if knee.wear.spurs else []
    for spur in knee.wear.spurs:
        parts = [interval(knee.placed(part), camera) for part in bones.spur(knee, spur)]
        added = 0.26 * mineral * _union(parts, whole)
        spurs.append((spur, added))
        total += added
    for tube in metal:
        total += tube.density * deposit(tube, camera, tube.radius)
    return Shadow(total, tuple(spurs))


def _outer(knee: Knee) -> list[Convex]:
    both = (bones.femur(knee), bones.tibia(knee))
    return [knee.placed(solid) for bone in both for solid in bone.outer]


def _bone(knee: Knee, bone: Bone, camera: Camera, grain: Map) -> Map:
    """What a bone adds: its compact wall, and its marrow, spongy near the joint only."""
    whole = _union([interval(knee.placed(s), camera) for s in bone.outer])
    marrow = _union([interval(knee.placed(s), camera) for s in bone.inner])
    _, rows = camera.rays(0.0)
    near = np.exp(-((rows / (6.0 * knee.build.scale)) ** 2)).astype(np.float32)[:, None]
    wall = np.maximum(whole - marrow, 0.0)
    spongy: Map = CORTEX * wall + SPONGE * (0.25 + 0.75 * near) * marrow * (1.0 + grain)
    return spongy


def _union(solids: Sequence[Interval], others: Sequence[Interval] = ()) -> Map:
    """Length of every ray in any of the solids, and in none of the others."""
    total = np.zeros_like(solids[0][0])
    before = list(others)
    for solid in solids:
        # inclusion and exclusion doubles with each: only those that touch
        touching = [other for other in before if _touch(solid, other)]
        total = total + without(solid, touching)
        before.append(solid)
    return total


def _touch(one: Interval, two: Interval) -> bool:
    near, far = meet(one, two)
    return bool((far > near).any())


def trabeculae(seed: int, camera: Camera) -> Map:
    """[H, W] relative density of spongy bone: fine beams along the load, fewer across it."""
    noise = np.random.default_rng([seed, 7]).standard_normal((256, 256), dtype=np.float32)
    along = cv2.GaussianBlur(noise, (0, 0), 0.8, sigmaY=5.0)
    across = cv2.GaussianBlur(noise.T.copy(), (0, 0), 4.0, sigmaY=1.0)
    grain = along / along.std() + 0.6 * across / across.std()
    fine = cv2.resize(grain, (camera.size, camera.size), interpolation=cv2.INTER_AREA)
    return np.asarray(0.09 * fine, np.float32)


def flesh(knee: Knee, camera: Camera) -> Map:
    """Fat, and the muscle inside of it."""
    build = knee.build
    half = build.flesh / build.scale

    def leg(inset: float) -> Convex:
        def profile(t: Array) -> tuple[Array, ...]:
            y = -20.0 + 40.0 * t
            thigh = 0.06 * np.maximum(-y - 2.0, 0.0)
            calf = 0.5 * np.exp(-(((y - 8.0) / 4.0) ** 2))
            width = half + thigh + calf
            return 0.0 * t, -0.5 + 0.0 * t, (width - inset), (0.92 * width - inset)

        return knee.placed(stack(-20.0, 20.0, profile))

    fat = path(leg(0.0), camera)
    return np.asarray(0.9 * WATER * fat + 0.13 * WATER * path(leg(build.fat * half * 0.6), camera))
