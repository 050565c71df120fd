"""A rectangle painted over where readers did not look (FocusContrast, arXiv:2305.08826).

Rules as in `contrastive_learning_example.md` of JamesQFreeman/MicEye, where a rectangle may cover a
sum of 400 of a map scaled to a peak of 1 at 224 pixels. That is a tenth to two fifths of a chest's
saliency, by how wide a fixation is drawn; here it is a share, which does not depend on either.

Shape letters: B views, R redraws, S side of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import check_within
from lightning_rad.data.views.summed_area import mass_within, summed_area, with_mass

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class FocusCutout:
    """One rectangle in a view, wholly inside it, that covers little of its saliency.

    Rectangles are drawn until one covers little enough: a corner, then sides from the least to
    what is left to the border.

    Args:
        probability: Probability of a rectangle, 0 to 1.
        least: Shortest side, as a share of the view's, 0.01 to 1.
        most: Longest side, as a share of the view's, `least` to 1.
        mass: Share of the view's saliency that may be covered, 0 to 1.
        redraws: Rectangles drawn at most, 1 to 1000; then the last is taken.
        fill: Grey that it is painted with, 0 to 255.
    """

    probability: float = 0.5
    least: float = 48 / 224
    most: float = 1.0
    mass: float = 0.1
    redraws: int = 100
    fill: int = 0

    before: ClassVar[int] = 1
    """Uniforms that come before those of the rectangles: fires."""

    def __post_init__(self) -> None:
        check_within("cutout.probability", self.probability, 0.0, 1.0)
        check_within("cutout.least", self.least, 0.01, 1.0)
        check_within("cutout.most", self.most, self.least, 1.0)
        check_within("cutout.mass", self.mass, 0.0, 1.0)
        check_within("cutout.redraws", self.redraws, 1, 1000)
        check_within("cutout.fill", self.fill, 0, 255)

    @property
    def draws(self) -> int:
        """Uniforms needed for one view."""
        return self.before + 4 * self.redraws

    def fires(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """[B] which views it touches, of the uniforms that `draw` takes: others need no map."""
        return np.asarray(u[:, 0] < self.probability)

    def draw(
        self, u: Floats, seen: Sequence[npt.NDArray[Any] | None], shape: tuple[int, int]
    ) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """[B, 1, 4] rectangles (top, left, bottom, right), empty where none; which are exhausted.

        u: [B, draws] uniforms. seen: [S, S] saliency over each VIEW, of any scale, or None; in a
        view without saliency the first rectangle is as good as any.
        """
        candidates = self._candidates(u[:, self.before :].reshape(len(u), -1, 4), shape)
        fires = self.fires(u)
        chosen, exhausted = np.zeros(len(u), np.int64), np.zeros(len(u), np.bool_)
        extent = np.array([shape[1], shape[0], shape[1], shape[0]], np.float64)
        for row in np.flatnonzero(fires).tolist():
            map_SS = with_mass(seen[row])
            if map_SS is None:
                continue
            table = summed_area(map_SS)
            boxes = candidates[row][:, [1, 0, 3, 2]] / extent
            fits = mass_within(table, boxes) <= (self.mass + ROUNDING) * table[-1, -1]
            chosen[row], exhausted[row] = np.argmax(fits), not fits.any()
        chosen[exhausted] = self.redraws - 1
        holes = candidates[np.arange(len(u)), chosen] * fires[:, None]
        return holes[:, None].astype(np.int32), exhausted

    def _candidates(self, u: Floats, shape: tuple[int, int]) -> Ints:
        """[B, R, 4] (top, left, bottom, right) in whole pixels."""
        side = np.array(shape, np.float64)
        least = np.maximum(np.rint(self.least * side), 1.0)
        most = np.maximum(np.rint(self.most * side), least)
        start = np.floor(u[..., :2] * (side - least + 1))
        room = np.minimum(most, side - start) - least
        extent = least + np.floor(u[..., 2:] * (room + 1))
        return np.concatenate([start, start + extent], -1).astype(np.int32)
