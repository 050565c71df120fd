"""Line integrals of attenuation through a chest, and the shadow of each finding.

Rays are parallel; what a point source adds is kept as one magnification for each solid, from the
depth of its centre (so a heart is wider on an AP than on a PA view, ribs of front and back slide
against each other). Along a ray every solid is one interval of depth, so "lung without heart" is
exact arithmetic of intervals. Letters: u to the right of the image, y down, w towards the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma, pi, sqrt

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.sharding.sources.synthetic.solids import Array, Convex, Ellipsoid, Stack, Tube

Map = npt.NDArray[np.float32]
Interval = tuple[Map, Map]
"""Nearest and farthest depth [H, W] of a solid along every ray; equal where the ray misses it."""


@dataclass(frozen=True)
class Camera:
    """Where tube and detector stand.

    view: "PA", "AP" or "LATERAL" (left side to the detector, spine on the image's right). size:
    pixels a side. pitch: cm of the detector a pixel covers. turn: rotation of the patient about
    the long axis, radians. shift: cm the image's centre is to the right of and below the beam's.
    beam: y that the central ray meets. distance: tube to detector, gap: patient's axis to
    detector, both in cm.
    """

    view: str
    size: int
    pitch: float
    turn: float
    shift: tuple[float, float]
    beam: float
    distance: float
    gap: float = 14.0

    @property
    def frame(self) -> tuple[Array, Array]:
        """Unit vectors u and w in the patient's frame."""
        s, c = np.sin(self.turn), np.cos(self.turn)
        if self.view == "LATERAL":
            return np.array([s, 0.0, -c]), np.array([c, 0.0, s])
        front = np.array([-s, 0.0, c])
        return np.array([c, 0.0, s]), front if self.view == "PA" else -front

    def zoom(self, depth: Array | float) -> Array:
        """Magnification of what lies at depth w."""
        return np.asarray(self.distance / (self.distance - self.gap + depth))

    def rays(self, depth: float) -> tuple[Map, Map]:
        """u of every column and y of every row where their rays pass at depth w, in cm."""
        steps = (np.arange(self.size) + 0.5 - self.size / 2) * self.pitch
        zoom = self.zoom(depth)
        u, y = (steps + self.shift[0]) / zoom, (steps + self.shift[1]) / zoom + self.beam
        return u.astype(np.float32), y.astype(np.float32)

    def pixels(self, points: Array) -> tuple[Array, Array, Array]:
        """Column, row (continuous, pixel centres at .5) and magnification of points [n, 3]."""
        u, w = self.frame
        zoom = self.zoom(points @ w)
        column = (zoom * (points @ u) - self.shift[0]) / self.pitch + self.size / 2
        row = (zoom * (points[:, 1] - self.beam) - self.shift[1]) / self.pitch + self.size / 2
        return column, row, zoom


def interval(solid: Convex, camera: Camera) -> Interval:
    """Depths between which every ray runs through a solid (the surface, if it is soft)."""
    return _pile(solid, camera) if isinstance(solid, Stack) else _ball(solid, camera)


def path(solid: Convex, camera: Camera) -> Map:
    """Length of solid along every ray, in cm; density-weighted for a soft one."""
    near, far = interval(solid, camera)
    length = far - near
    if isinstance(solid, Stack) or solid.softness == 0.0:
        return length
    # (1 - r^2)^n along a chord whose half is h = H sqrt(1 - q): sqrt(pi) G(n+1)/G(n+3/2) (1-q)^n h
    n = solid.softness
    peak = 2.0 * _section(solid, camera)[3]
    total = sqrt(pi) * gamma(n + 1.0) / gamma(n + 1.5) / 2.0
    return np.asarray(total * length * (length / peak) ** (2.0 * n), np.float32)


def _ball(solid: Ellipsoid, camera: Camera) -> Interval:
    centre, inverse, lean, half = _section(solid, camera)
    columns, rows = camera.rays(float(centre[2]))
    du, dy = columns[None] - np.float32(centre[0]), rows[:, None] - np.float32(centre[1])
    q = np.float32(inverse[0, 0]) * du**2 + np.float32(inverse[1, 1]) * dy**2
    q = q + np.float32(2.0 * inverse[0, 1]) * du * dy
    reach = np.float32(half) * np.sqrt(np.maximum(1.0 - q, 0.0, dtype=np.float32))
    middle = np.float32(centre[2]) + np.float32(lean[0]) * du + np.float32(lean[1]) * dy
    return middle - reach, middle + reach


def _section(solid: Ellipsoid, camera: Camera) -> tuple[Array, Array, Array, float]:
    """Centre (u, y, w), inverse of the outline's 2 x 2 matrix, slope and length of half-chords.

    The outline and the plane of the chords' middles are those of a Gaussian with covariance
    `spread`: its marginal in (u, y) and its conditional mean of w.
    """
    u, w = camera.frame
    basis = np.stack([u, [0.0, 1.0, 0.0], w])
    spread = basis @ solid.spread @ basis.T
    inverse = np.linalg.inv(spread[:2, :2])
    lean = spread[2, :2] @ inverse
    return basis @ solid.centre, inverse, lean, sqrt(spread[2, 2] - lean @ spread[:2, 2])


def _pile(solid: Stack, camera: Camera) -> Interval:
    u, w = camera.frame
    mean = solid.slices[:, :2].mean(axis=0)
    columns, rows = camera.rays(float(mean @ w[[0, 2]]))
    cx, cz, a, d = solid.at(rows.astype(np.float64))
    a, d = np.maximum(a, 1e-6), np.maximum(d, 0.0)
    square = (a * u[0]) ** 2 + (d * u[2]) ** 2
    lean = (a**2 * u[0] * w[0] + d**2 * u[2] * w[2]) / np.maximum(square, 1e-12)
    width = np.sqrt(np.maximum(square, 1e-12))
    centre_u, centre_w = cx * u[0] + cz * u[2], cx * w[0] + cz * w[2]
    du = columns[None] - _column(centre_u)
    ratio = np.minimum(np.abs(du) * _column(1.0 / width), 1.0)
    if solid.exponent == 2.0:
        reach = np.sqrt(1.0 - ratio * ratio)
    else:
        power = np.float32(solid.exponent)
        reach = (1.0 - ratio**power) ** (1 / power)
    reach = reach * _column(a * d / width)
    middle = _column(centre_w) + _column(lean) * du
    return middle - reach, middle + reach


def _column(values: Array) -> Map:
    column: Map = values.astype(np.float32)[:, None]
    return column


def without(kept: Interval, lacking: list[Interval]) -> Map:
    """Length of an interval that none of the others covers, by inclusion and exclusion."""
    if not lacking:
        return kept[1] - kept[0]
    first, rest = lacking[0], lacking[1:]
    length: Map = without(kept, rest) - without(meet(kept, first), rest)
    return length


def meet(one: Interval, two: Interval) -> Interval:
    """What two intervals share; empty (far = near) where nothing is shared."""
    near = np.maximum(one[0], two[0])
    return near, np.maximum(np.minimum(one[1], two[1]), near)


def deposit(tube: Tube, camera: Camera, radius: float) -> Map:
    """Length of tube of the given radius along every ray, in cm.

    The curve's volume is dropped on the nearest four pixels and spread over the cross-section, so
    that a tube seen end-on is dense, and one across the ray has its chord.
    """
    n = camera.size
    column, row, zoom = camera.pixels(tube.points)
    area = (camera.pitch / zoom) ** 2
    mass = tube.length * np.pi * radius**2 / area
    left, top = np.floor(column - 0.5), np.floor(row - 0.5)
    fx, fy = column - 0.5 - left, row - 0.5 - top
    image = np.zeros((n + 2) * (n + 2))
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
        x = np.clip(left + dx + 1, 0, n + 1).astype(np.int64)
        y = np.clip(top + dy + 1, 0, n + 1).astype(np.int64)
        image += np.bincount(y * (n + 2) + x, mass * share, minlength=image.size)
    inner = image.reshape(n + 2, n + 2)[1:-1, 1:-1].astype(np.float32)
    extent = radius / camera.pitch
    side = 2 * int(np.ceil(extent)) + 1
    # the clipped frame gathers what falls outside, and is cut off
    return np.asarray(cv2.GaussianBlur(inner, (side, side), max(0.52 * extent, 0.3)))
