"""Gaussian blur as whole-number kernels, so that every backend adds up the same integers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import between, check_interval, check_within
from lightning_rad.kernels.render.units import KERNEL_UNIT


@dataclass(frozen=True)
class Blur:
    """Separable Gaussian blur; pixels beyond the border repeat the border.

    Args:
        probability: Share of the views that are blurred, 0 to 1.
        sigma: Standard deviation in pixels of the view, uniform in an interval within 0 to 10.
    """

    probability: float = 0.5
    sigma: tuple[float, float] = (0.1, 1.5)

    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_within("blur.probability", self.probability, 0.0, 1.0)
        check_interval("blur.sigma", self.sigma, 0.0, 10.0)

    def draw(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """[B, 2R + 1] kernels from u: [B, 2] uniforms, R being three of the largest sigma."""
        blurred = u[:, 0] < self.probability
        sigma = np.where(blurred, between(u[:, 1], *self.sigma), 0.0)
        return gaussian_kernels(sigma, ceil(3 * self.sigma[1]))


def gaussian_kernels(sigma: npt.NDArray[np.float64], radius: int) -> npt.NDArray[np.int32]:
    """[B, 2 radius + 1] symmetric kernels that sum to KERNEL_UNIT exactly; sigma 0 is the identity.

    The masses of the tails are rounded, not the coefficients, so that errors do not pile up in the
    centre: every coefficient is within one unit of its exact value.
    """
    distance = np.arange(1, radius + 1)
    weight = np.exp(-0.5 * (distance / np.maximum(sigma, 1e-3)[:, None]) ** 2)
    total = 1.0 + 2.0 * weight.sum(1, keepdims=True)
    tails = np.cumsum(weight[:, ::-1], 1)[:, ::-1] / total
    tails = np.rint(np.concatenate([tails, np.zeros((len(sigma), 1))], 1) * KERNEL_UNIT)
    side = tails[:, :-1] - tails[:, 1:]
    centre = KERNEL_UNIT - 2 * tails[:, :1]
    return np.concatenate([side[:, ::-1], centre, side], 1).astype(np.int32)
