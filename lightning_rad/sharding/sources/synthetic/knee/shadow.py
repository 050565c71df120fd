"""What a knee takes from every ray, and the part of it that each osteophyte is responsible for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    path,
    without,
)
from lightning_rad.sharding.sources.synthetic.solids import Array, Convex, Tube, stack

CORTEX: Final = 0.34
SPONGE: Final = 0.11
"""Attenuation per cm of compact and of spongy bone above that of the soft tissue in its place."""

_TILE, _CELL = 256, 0.05
"""Side of the drawn trabeculae in cells, and of a cell in cm."""


@dataclass(frozen=True)
class Shadow:
    """attenuation: [H, W] along every ray. spurs: with each osteophyte, what it alone adds."""

    attenuation: Map
    spurs: tuple[tuple[Spur, Map], ...]


def cast(
    knee: Knee, camera: Camera, metal: Sequence[Tube] = (), other: float | None = None
) -> Shadow:
    """The shadow of a knee for one position of tube and detector.

    metal: screws, away from the joint. other: cm between it and the other leg, None without it.
    """
    grain, planes = texture(knee, camera)
    total = flesh(knee, camera) * (1.0 + planes)
    if other is not None:
        total = total + flesh(knee, camera, apart=other)
    mineral = knee.build.bone
    hulls = []
    for bone in (bones.femur(knee), bones.tibia(knee), bones.fibula(knee), bones.patella(knee)):
        hull = _hull(knee, bone.outer, camera)
        hulls.append(hull)
        total += mineral * _bone(knee, bone, hull, camera, grain)
    for plate in bones.plates(knee):
        total += 0.06 * mineral * path(knee.placed(plate), camera)
    for cloud in bones.whitening(knee):
        total += 0.2 * knee.wear.sclerosis * mineral * path(knee.placed(cloud), camera)
    spurs: list[tuple[Spur, Map]] = []
    for spur in knee.wear.spurs:
        added = 0.26 * mineral * _spur(knee, spur, camera, hulls[:2])
        spurs.append((spur, added))
        total += added
    for tube in metal:
        total += tube.density * deposit(tube, camera, tube.radius)
    return Shadow(total, tuple(spurs))


def _spur(knee: Knee, spur: Spur, camera: Camera, within: Sequence[Interval]) -> Map:
    """Length of an osteophyte along every ray; what lies within other bones does not count."""
    parts = bones.spur(knee, spur)
    length = np.zeros((camera.size, camera.size), np.float32)
    # few rays meet it: only those of a small camera that sees what this part of the picture does
    column, row, zoom = camera.pixels(np.stack([knee.point(*part.centre) for part in parts]))
    reach = 2.5 * spur.length * knee.build.scale * float(zoom.max()) / camera.pitch
    size = min(int(np.ceil(2.0 * reach)), camera.size)
    start = np.array([row.mean(), column.mean()]) - size / 2
    top, left = np.clip(np.rint(start), 0, camera.size - size).astype(int).tolist()
    off = camera.pitch * (np.array([left, top]) + (size - camera.size) / 2)
    shift = (camera.shift[0] + float(off[0]), camera.shift[1] + float(off[1]))
    small = replace(camera, size=size, shift=shift)
    part = (slice(top, top + size), slice(left, left + size))
    bone = [(near[part], far[part]) for near, far in within]
    first, second = (interval(knee.placed(p), small) for p in parts)
    length[part] = without(first, bone) + without(second, [first, *bone])
    return length


def _hull(knee: Knee, solids: Sequence[Convex], camera: Camera) -> Interval:
    """From where a ray first meets any of the solids to where it leaves the last.

    Those of one bone lie in each other on any ray from the front that meets several.
    """
    intervals = [interval(knee.placed(solid), camera) for solid in solids]
    if len(intervals) == 1:
        return intervals[0]
    near = np.full((camera.size, camera.size), np.inf, np.float32)
    far = -near
    for first, last in intervals:
        met = last > first
        np.minimum(near, first, out=near, where=met)
        np.maximum(far, last, out=far, where=met)
    missed = far < near
    near[missed], far[missed] = 0.0, 0.0
    return near, far


def _bone(knee: Knee, bone: Bone, hull: Interval, camera: Camera, grain: Map) -> Map:
    """What a bone adds: its compact wall, and its marrow, spongy near the joint only."""
    near, far = _hull(knee, bone.inner, camera)
    marrow = far - near
    _, rows = camera.rays(0.0)
    close = np.exp(-((rows / (6.0 * knee.build.scale)) ** 2)).astype(np.float32)[:, None]
    wall = np.maximum(hull[1] - hull[0] - marrow, 0.0)
    spongy: Map = CORTEX * wall + SPONGE * (0.25 + 0.75 * close) * marrow * (1.0 + grain)
    return spongy


def texture(knee: Knee, camera: Camera) -> tuple[Map, Map]:
    """[H, W] relative density of spongy bone and of flesh, both 0 on the mean.

    Bone: fine beams along the load, fewer across it. Flesh: planes of fat between the muscles.
    They belong to the knee: another position of the tube moves them with it.
    """
    noise = np.random.default_rng([knee.build.detail, knee.side > 0]).standard_normal(
        (_TILE, _TILE), dtype=np.float32
    )
    # no finer than the detector's pixels
    fine = max(0.8, 0.5 * camera.pitch / _CELL)
    grain = _smooth(noise, fine, 5.0 * fine) + 0.5 * _smooth(noise.T.copy(), 4.0 * fine, fine)
    coarse = noise[::8, ::8].copy()
    grain += 0.6 * cv2.resize(_smooth(coarse, 2.0, 2.0), (_TILE, _TILE))
    planes = cv2.resize(_smooth(coarse.T.copy(), 1.0, 3.0), (_TILE, _TILE))
    columns, rows = camera.rays(0.0)
    step = 1.0 / (_CELL * knee.build.scale)
    place = np.array(
        [
            [step * (columns[1] - columns[0]), 0.0, step * columns[0] + _TILE / 2],
            [0.0, step * (rows[1] - rows[0]), step * rows[0] + _TILE / 2],
        ]
    )
    size = (camera.size, camera.size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    both = np.stack([0.1 * grain, 0.03 * planes], axis=2)
    seen = cv2.warpAffine(both, place, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(seen[:, :, 0]), np.ascontiguousarray(seen[:, :, 1])


def _smooth(noise: Map, across: float, along: float) -> Map:
    """White noise of deviation 1, smoothed by these many cells, again of deviation about 1."""
    deviation = 1.0 / np.sqrt(4.0 * np.pi * across * along)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), across, sigmaY=along) / deviation, np.float32)


def flesh(knee: Knee, camera: Camera, apart: float | None = None) -> Map:
    """Fat, and the muscle inside of it. apart: cm from this leg to the other, whose flesh it is."""
    build = knee.build
    half = build.flesh / build.scale
    x = 0.0 if apart is None else 2.0 * half + apart

    def leg(inset: float) -> Convex:
        def profile(t: Array) -> tuple[Array, ...]:
            y = -20.0 + 40.0 * t
            thigh = 0.06 * np.maximum(-y - 2.0, 0.0)
            calf = 0.5 * np.exp(-(((y - 8.0) / 4.0) ** 2))
            width = half + thigh + calf
            return x + 0.0 * t, -0.5 + 0.0 * t, (width - inset), (0.92 * width - inset)

        return knee.placed(stack(-20.0, 20.0, profile))

    fat = path(leg(0.0), camera)
    return np.asarray(0.9 * WATER * fat + 0.13 * WATER * path(leg(build.fat * half * 0.6), camera))
