"""What readers did not look at, darkened (FocusContrast, arXiv:2305.08826).

Rules as in `contrastive_learning_example.md` of JamesQFreeman/MicEye: the saliency, of peak 1, is
blurred by a Gaussian, divided by its peak (and 0.01), raised by a floor, cut at 1, and multiplies
the image. There the blur mirrors the map at its border, here nothing lies beyond it.

Shape letters: B views, S side of a map, h w pixels of a view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import check_within
from lightning_rad.data.views.summed_area import with_mass

AGAINST_ZERO: Final = 0.01


@dataclass(frozen=True)
class FocusDrop:
    """A gain for each pixel of a view, 1 where readers looked most.

    Args:
        probability: Share of the views that are darkened, 0 to 1.
        spread: Standard deviation of the blur, as a share of the view's side, 0.01 to 0.5. The
            code's kernel of 199 pixels has 30.2 of 224.
        floor: Gain where nobody looked, 0 to 1.
    """

    probability: float = 0.5
    spread: float = 0.135
    floor: float = 0.1

    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_within("drop.probability", self.probability, 0.0, 1.0)
        check_within("drop.spread", self.spread, 0.01, 0.5)
        check_within("drop.floor", self.floor, 0.0, 1.0)

    def fires(self, u: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """[B] which views it touches, of the uniforms that `draw` takes: others need no map."""
        return np.asarray(u[:, 0] < self.probability)

    def draw(
        self,
        u: npt.NDArray[np.float64],
        seen: Sequence[npt.NDArray[Any] | None],
        shape: tuple[int, int],
    ) -> npt.NDArray[np.uint8]:
        """[B, h, w] gains in units of 1 / 255; all 255 where it does not fire or nobody looked.

        u: [B, 1] uniforms. seen: [S, S] saliency over each VIEW, of any scale, or None.
        """
        shade = np.full((len(u), *shape), 255, np.uint8)
        for row in np.flatnonzero(self.fires(u)).tolist():
            map_SS = with_mass(seen[row])
            if map_SS is not None:
                shade[row] = self._shade(map_SS, shape)
        return shade

    def _shade(self, map_SS: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
        peaked = (map_SS / map_SS.max()).astype(np.float32)
        down = _blur(shape[0], map_SS.shape[0], self.spread)
        across = _blur(shape[1], map_SS.shape[1], self.spread)
        soft = down @ peaked @ across.T
        scale = 255.0 / (float(soft.max()) + AGAINST_ZERO)
        # one pass: times, plus, rounded, cut at 255
        return np.asarray(cv2.convertScaleAbs(soft, alpha=scale, beta=255.0 * self.floor))


@lru_cache(maxsize=8)
def _blur(pixels: int, cells: int, spread: float) -> npt.NDArray[np.float32]:
    """[pixels, cells] weights of a Gaussian from the centres of cells to those of pixels."""
    at, of = (np.arange(pixels) + 0.5) / pixels, (np.arange(cells) + 0.5) / cells
    weights = np.exp(-0.5 * ((at[:, None] - of[None, :]) / spread) ** 2)
    return (weights / (math.sqrt(2.0 * math.pi) * spread * cells)).astype(np.float32)
