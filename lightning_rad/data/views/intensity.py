"""All pointwise changes of grey, folded into one table of 256 entries a view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import between, check_within


@dataclass(frozen=True)
class Intensity:
    """Exposure and windowing as a table: g -> clip(contrast * (g^gamma - 1/2) + 1/2 + brightness).

    Greys g run from 0 to 1. The image's own mean plays no part, so the table needs no pixel.
    `invert` and `solarise` are off by default: they turn bone black, which no radiograph in a
    consistent set does.

    Args:
        probability: Share of the views whose brightness, contrast and gamma are changed, 0 to 1.
        brightness: Largest shift, either way, in fractions of full scale, uniform, 0 to 1.
        contrast: The slope is uniform within 1 - contrast to 1 + contrast, 0 to 0.95.
        gamma: The exponent is log-uniform within 1 / gamma to gamma, 1 to 5.
        invert: Probability of a negative, 0 to 1.
        solarise: Probability of a negative above mid grey, 0 to 1.
    """

    probability: float = 0.8
    brightness: float = 0.1
    contrast: float = 0.25
    gamma: float = 1.4
    invert: float = 0.0
    solarise: float = 0.0

    draws: ClassVar[int] = 6

    def __post_init__(self) -> None:
        check_within("intensity.probability", self.probability, 0.0, 1.0)
        check_within("intensity.brightness", self.brightness, 0.0, 1.0)
        check_within("intensity.contrast", self.contrast, 0.0, 0.95)
        check_within("intensity.gamma", self.gamma, 1.0, 5.0)
        check_within("intensity.invert", self.invert, 0.0, 1.0)
        check_within("intensity.solarise", self.solarise, 0.0, 1.0)

    def draw(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """[B, 256] tables from u: [B, 6] uniforms."""
        changed = u[:, 0] < self.probability
        shift = np.where(changed, between(u[:, 1], -self.brightness, self.brightness), 0.0)
        slope = np.where(changed, between(u[:, 2], 1 - self.contrast, 1 + self.contrast), 1.0)
        power = np.where(changed, self.gamma ** between(u[:, 3], -1.0, 1.0), 1.0)
        grey = np.arange(256) / 255.0
        table = slope[:, None] * (grey ** power[:, None] - 0.5) + 0.5 + shift[:, None]
        table = np.where((u[:, 4] < self.invert)[:, None], 1.0 - table, table)
        solarised = (u[:, 5] < self.solarise)[:, None] & (table > 0.5)
        table = np.where(solarised, 1.0 - table, table)
        return np.rint(np.clip(table, 0.0, 1.0) * 255.0).astype(np.uint8)
