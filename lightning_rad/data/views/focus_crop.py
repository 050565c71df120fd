"""Crops that keep what readers looked at (FocusContrast, arXiv:2305.08826).

Rules as in `contrastive_learning_example.md` of JamesQFreeman/MicEye, but: windows are whole
fractions of the picture's own width and height, which are not exchanged; the share is of all that
was looked at, also where the turn moves some of it out of the picture; a zoom of 1 shows the whole
picture; a picture nobody looked at gets a random crop.

Shape letters: B images, R redraws, S side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.geometry import affine_map
from lightning_rad.data.views.ranges import between, check_interval, check_within
from lightning_rad.data.views.summed_area import mass_within, summed_area, turned, with_mass

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Maps = Sequence[npt.NDArray[Any] | None]
OnExhausted = Literal["last", "best"]

ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class FocusCrop:
    """A window of the picture, of the picture's aspect, that keeps most of its saliency.

    The picture is turned, a zoom is drawn once, and windows of that zoom are drawn until one keeps
    enough. No mirror by default, because laterality matters in a radiograph (the code: 0.5).

    Args:
        probability: Probability that the window is constrained, 0 to 1; else the first is taken.
        zoom: Sides of the picture over sides of the window, uniform in an interval within 1 to 10.
        keep: Share of the picture's saliency that a window has to show, 0 to 1.
        redraws: Windows drawn at most, 1 to 1000.
        rotation: Largest angle in degrees, either way, uniform, 0 to 180; about the picture's
            centre.
        flip: Probability of a left-right mirror, 0 to 1.
        fallback_zoom: As zoom, for a picture that nobody looked at.
        on_exhausted: Which window is taken where none keeps enough: the last (the code), or the
            best.
    """

    probability: float = 1.0
    zoom: tuple[float, float] = (1.0, 2.0)
    keep: float = 0.9
    redraws: int = 200
    rotation: float = 45.0
    flip: float = 0.0
    fallback_zoom: tuple[float, float] = (1.2, 2.0)
    on_exhausted: OnExhausted = "last"

    before: ClassVar[int] = 4
    """Uniforms that come before those of the windows: fires, zoom, angle, mirror."""

    def __post_init__(self) -> None:
        check_within("crop.probability", self.probability, 0.0, 1.0)
        check_interval("crop.zoom", self.zoom, 1.0, 10.0)
        check_within("crop.keep", self.keep, 0.0, 1.0)
        check_within("crop.redraws", self.redraws, 1, 1000)
        check_within("crop.rotation", self.rotation, 0.0, 180.0)
        check_within("crop.flip", self.flip, 0.0, 1.0)
        check_interval("crop.fallback_zoom", self.fallback_zoom, 1.0, 10.0)
        if self.on_exhausted not in get_args(OnExhausted):
            accepted = list(get_args(OnExhausted))
            raise ValueError(f"crop.on_exhausted: '{self.on_exhausted}' is not one of {accepted}")

    @property
    def draws(self) -> int:
        """Uniforms needed for one view."""
        return self.before + 2 * self.redraws

    def draw(
        self, u: Floats, sizes: npt.NDArray[np.integer[Any]], maps: Maps, shape: tuple[int, int]
    ) -> tuple[Ints, Ints, Flags, Flags]:
        """Affine maps [B, 2, 3] and factors [B] of the crops; which are exhausted, which blank [B].

        u: [B, draws] uniforms. sizes: [B, 2] height and width. maps: of each picture [S, S] over
        all of it, of any scale, or None. exhausted: no window kept enough. blank: nobody looked.
        """
        looked = [with_mass(m) for m in maps]
        blank = np.array([m is None for m in looked], np.bool_)
        fires = u[:, 0] < self.probability
        zoom = between(u[:, 1], *self.zoom)
        zoom[fires & blank] = between(u[fires & blank, 1], *self.fallback_zoom)
        degrees = between(u[:, 2], -self.rotation, self.rotation)
        share = 1.0 / zoom  # of each side
        corners = (1.0 - share)[:, None, None] * u[:, self.before :].reshape(len(u), -1, 2)
        chosen, exhausted = np.zeros(len(u), np.int64), np.zeros(len(u), np.bool_)
        for row in np.flatnonzero(fires & ~blank):
            height, width = (int(side) for side in sizes[row])
            kept = _kept(looked[row], (height, width), degrees[row], corners[row], share[row])
            chosen[row], exhausted[row] = self._choose(kept)
        extents = np.asarray(sizes, np.float64)[:, ::-1]
        off = (corners[np.arange(len(u)), chosen] + share[:, None] / 2 - 0.5) * extents
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        back = np.stack([cos * off[:, 0] - sin * off[:, 1], sin * off[:, 0] + cos * off[:, 1]], 1)
        affine, factors = affine_map(
            extents / 2 + back,
            extents * share[:, None],
            degrees=degrees,
            mirrored=u[:, 3] < self.flip,
            shape=shape,
        )
        return affine, factors, exhausted, blank

    def _choose(self, kept_R: Floats) -> tuple[int, bool]:
        """The first window that keeps enough, and False; or what stands in for it, and True."""
        first = int(np.argmax(kept_R >= self.keep - ROUNDING))
        if kept_R[first] >= self.keep - ROUNDING:
            return first, False
        return (int(np.argmax(kept_R)) if self.on_exhausted == "best" else len(kept_R) - 1), True


def _kept(
    map_SS: npt.NDArray[Any] | None,
    size: tuple[int, int],
    degrees: float,
    corners_R2: Floats,
    share: float,
) -> Floats:
    """[R] share of a picture's saliency that each window shows."""
    assert map_SS is not None, "a blank map constrains nothing"
    table = summed_area(turned(map_SS, size, degrees))
    boxes = np.concatenate([corners_R2, corners_R2 + share], 1)
    return np.asarray(mass_within(table, boxes) / map_SS.sum(dtype=np.float64))
