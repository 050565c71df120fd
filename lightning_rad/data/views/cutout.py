"""Rectangles painted over (DeVries and Taylor, "Improved regularization ...", 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import between, check_interval, check_within


@dataclass(frozen=True)
class Cutout:
    """Rectangles in a view, wholly inside it, possibly overlapping.

    The width of one over its height is log-uniform within 1/2 to 2.

    Args:
        count: Rectangles that may appear, 1 to 16.
        probability: Probability of each of them to appear, 0 to 1.
        area: Share of the view that one covers, uniform in an interval within 0 to 0.5.
        fill: Grey that they are painted with, 0 to 255.
    """

    count: int = 1
    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.1)
    fill: int = 0

    draws_each: ClassVar[int] = 5

    def __post_init__(self) -> None:
        check_within("cutout.count", self.count, 1, 16)
        check_within("cutout.probability", self.probability, 0.0, 1.0)
        check_interval("cutout.area", self.area, 0.0, 0.5)
        check_within("cutout.fill", self.fill, 0, 255)

    @property
    def draws(self) -> int:
        """Uniforms needed for one view."""
        return self.count * self.draws_each

    def draw(self, u: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.int32]:
        """[B, count, 4] rectangles from u: [B, draws] uniforms; an absent one is empty."""
        u = u.reshape(len(u), self.count, self.draws_each)
        area = between(u[..., 1], *self.area) * (u[..., 0] < self.probability)
        ratio = 4.0 ** (u[..., 2] - 0.5)
        side = np.sqrt(np.stack([area / ratio, area * ratio], -1)) * np.array(shape)
        side = np.minimum(np.rint(side), np.array(shape))
        start = np.floor(u[..., 3:5] * (np.array(shape) - side + 1))
        return np.concatenate([start, start + side], -1).astype(np.int32)
