"""Additive noise from one fixed tile: a view takes a window of it at its own place and strength."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import between, check_interval, check_within
from lightning_rad.randomness import hash64

TILE: Final = 512
"""Side of the square tile in pixels; windows wrap around."""

AMPLITUDE_UNIT: Final = 8
"""An amplitude of 8 is a standard deviation of one grey level."""


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise, added in grey levels.

    Args:
        probability: Share of the views that get noise, 0 to 1.
        sigma: Standard deviation in grey levels of 255, uniform in an interval within 0 to 30.
    """

    probability: float = 0.5
    sigma: tuple[float, float] = (0.0, 5.0)

    draws: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_within("noise.probability", self.probability, 0.0, 1.0)
        check_interval("noise.sigma", self.sigma, 0.0, 30.0)

    def draw(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """[B, 3] rows and columns of the tile and amplitudes, from u: [B, 4] uniforms."""
        noisy = u[:, 0] < self.probability
        amplitude = np.where(noisy, between(u[:, 1], *self.sigma) * AMPLITUDE_UNIT, 0.0)
        place = np.floor(u[:, 2:4] * TILE)
        return np.concatenate([place, np.rint(amplitude)[:, None]], 1).astype(np.int32)


@lru_cache(maxsize=1)
def noise_tile() -> npt.NDArray[np.int16]:
    """[TILE, TILE] near-Gaussian integers of standard deviation 32 within -127 to 127.

    Each is the sum of sixteen random bytes (excess kurtosis -0.075), centred, scaled and rounded in
    integers: the same tile on every machine.
    """
    words = hash64("noise tile", np.arange(TILE * TILE * 2).reshape(-1, 2))
    total = words.view(np.uint8).sum(1, dtype=np.int32).reshape(TILE, TILE) - 2040
    scaled: npt.NDArray[np.int32] = (total * 7094 + (1 << 15)) >> 16
    return np.clip(scaled, -127, 127).astype(np.int16)


@lru_cache(maxsize=8)
def wrapped_tile(height: int, width: int) -> npt.NDArray[np.int16]:
    """The tile continued periodically, so that every window of height x width is a plain slice."""
    rows, columns = np.arange(TILE + height) % TILE, np.arange(TILE + width) % TILE
    return np.ascontiguousarray(noise_tile()[rows][:, columns])
