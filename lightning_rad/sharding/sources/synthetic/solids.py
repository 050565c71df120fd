"""The shapes a chest is made of, in the patient's frame, in centimetres.

x points to the patient's left, y down from the apex of the lungs, z to the front. Every shape is
convex or a curve, so that a ray's path through it has a closed form (see projection.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RIGHT, CENTRAL, LEFT = -1, 0, 1
"""Sides of the patient; the sign is that of x."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of any orientation.

    centre: [3]. axes: [3, 3], a semi-axis vector a row. softness: 0 is a solid with an edge; the
    density of a soft one falls as (1 - r^2)^softness from its centre to its surface.
    """

    centre: Array
    axes: Array
    softness: float = 0.0

    @property
    def spread(self) -> Array:
        """[3, 3] matrix B with the surface (p - centre)' B^-1 (p - centre) = 1."""
        return self.axes.T @ self.axes

    def contains(self, points: Array) -> npt.NDArray[np.bool_]:
        """Which of the points [..., 3] lie inside."""
        offset = points - self.centre
        square = np.einsum("...i,ij,...j->...", offset, np.linalg.inv(self.spread), offset)
        return np.asarray(square <= 1.0)


@dataclass(frozen=True)
class Stack:
    """A pile of horizontal (super-)ellipses whose centres and half-axes change with height.

    y: [n] rising heights. slices: [n, 4] centre x, centre z, half-width along x, half-depth along
    z, linear between heights; outside them there is nothing. exponent: 2 is an ellipse, more is
    boxier.
    """

    y: Array
    slices: Array
    exponent: float = 2.0

    def at(self, y: Array) -> tuple[Array, ...]:
        """Centre x, centre z, half-width, half-depth at the heights y; half-axes 0 outside."""
        inside = (y >= self.y[0]) & (y <= self.y[-1])
        cx, cz, a, d = (np.interp(y, self.y, column) for column in self.slices.T)
        return cx, cz, a * inside, d * inside

    def contains(self, points: Array) -> npt.NDArray[np.bool_]:
        """Which of the points [..., 3] lie inside."""
        cx, cz, a, d = self.at(points[..., 1])
        across = np.abs(points[..., 0] - cx) / np.maximum(a, 1e-6)
        along = np.abs(points[..., 2] - cz) / np.maximum(d, 1e-6)
        return np.asarray((across**self.exponent + along**self.exponent <= 1.0) & (a > 0))


Convex = Ellipsoid | Stack


@dataclass(frozen=True)
class Tube:
    """Material along curves, each cross-section a disc of one radius.

    points: [n, 3] samples of the curves. length: [n] length of curve that a sample stands for.
    radius: in cm. density: attenuation per cm above that of what the tube runs through.
    hollow: share of the radius that the less dense core takes.
    """

    points: Array
    length: Array
    radius: float
    density: float
    hollow: float = 0.0


def stack(
    top: float, bottom: float, profile: Callable[[Array], tuple[Array, ...]], exponent: float = 2.0
) -> Stack:
    """A stack from a function of t in [0, 1], from top to bottom, finely sampled at both ends."""
    t = (1.0 - np.cos(np.linspace(0.0, np.pi, 72))) / 2.0
    columns = [np.broadcast_to(np.asarray(c, np.float64), t.shape) for c in profile(t)]
    return Stack(top + (bottom - top) * t, np.stack(columns, axis=1), exponent)


def bullet(tip: float, cap: float, centre: tuple[float, float], half: tuple[float, float]) -> Stack:
    """A vertical elliptic cylinder that ends in half an ellipsoid.

    tip: height of its end. cap: height of the rounded part; positive makes the bullet point up
    (the tip is its top), negative makes it point down. centre, half: of the cylinder, in x and z.
    """
    angle = np.linspace(0.0, np.pi / 2, 48)
    y = tip + cap * (1.0 - np.cos(angle))
    round_slices = np.stack(
        [
            np.full_like(angle, centre[0]),
            np.full_like(angle, centre[1]),
            half[0] * np.sin(angle),
            half[1] * np.sin(angle),
        ],
        axis=1,
    )
    y = np.append(y, y[-1] + np.sign(cap) * 60.0)
    slices = np.vstack([round_slices, round_slices[-1]])
    return Stack(y, slices) if cap > 0 else Stack(y[::-1].copy(), slices[::-1].copy())


def tube(curves: Array, radius: float, density: float, hollow: float = 0.0) -> Tube:
    """A tube along curves [..., n, 3], each sampled in order."""
    step = np.linalg.norm(np.diff(curves, axis=-2), axis=-1)
    length = np.zeros(curves.shape[:-1])
    length[..., :-1] += step / 2
    length[..., 1:] += step / 2
    return Tube(curves.reshape(-1, 3), length.reshape(-1), radius, density, hollow)


def bezier(start: Array, middle: Array, end: Array, samples: int) -> Array:
    """[..., samples, 3] points of quadratic Bezier curves with the given controls [..., 3]."""
    t = np.linspace(0.0, 1.0, samples)[:, None]
    first, second, third = (np.asarray(p)[..., None, :] for p in (start, middle, end))
    return np.asarray((1 - t) ** 2 * first + 2 * t * (1 - t) * second + t**2 * third)
