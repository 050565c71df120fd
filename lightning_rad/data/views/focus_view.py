"""A view that looks where readers looked (FocusContrast, arXiv:2305.08826).

The operators are those of `contrastive_learning_example.md` of JamesQFreeman/MicEye; how often each
is used there is not published, so the probabilities here are ours.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Final, final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.data.views.focus_recipe import FocusRecipe, Maps
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.params import (
    BLANK,
    CROP_EXHAUSTED,
    CUTOUT_EXHAUSTED,
    ViewParams,
    only_geometry,
)
from lightning_rad.data.views.placement import map_seen
from lightning_rad.data.views.recipe import Ints
from lightning_rad.data.views.summed_area import Floats, with_mass
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.randomness import hash64, uniforms

_STARTS: Final = tuple(accumulate(part.draws for part in (Crop, Intensity, Blur)))


@final
class FocusView(FocusRecipe):
    """A random view that keeps what was looked at; what is left out is not done.

    The crop is chosen by the map of the picture, the cut-out and the drop by what the view shows of
    it. Each part has random numbers of its own: changing or adding a part leaves the others' draws.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
        saliency: Which maps are read, and how fine they are.
        crop: Which part of the image is shown.
        cutout: A rectangle painted over, where few looked.
        drop: Darkness where few looked.
        intensity: Changes of exposure and windowing.
        blur: Gaussian blur.
        noise: White Gaussian noise.
    """

    def __init__(
        self,
        size: int,
        *,
        saliency: Saliency = Saliency(),  # noqa: B008 - frozen
        crop: FocusCrop = FocusCrop(),  # noqa: B008 - frozen
        cutout: FocusCutout | None = None,
        drop: FocusDrop | None = None,
        intensity: Intensity | None = None,
        blur: Blur | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(size, saliency=saliency)
        self.crop, self.cutout, self.drop = crop, cutout, drop
        self.intensity, self.blur, self.noise = intensity, blur, noise

    def draw_focused(
        self, sizes: Ints, maps: Maps, *, seed: int, epochs: Ints, units: Ints, view: int
    ) -> ViewParams:
        """See `FocusRecipe.draw_focused`."""

        def drawn(purpose: str, count: int) -> Floats:
            return uniforms(int(hash64(purpose, seed)), epochs, units, view, count)

        # of the same columns as RandomView's
        numbers = uniforms(seed, epochs, units, view, _STARTS[-1] + Noise.draws)
        _, grey, soft, grain = np.split(numbers, _STARTS, axis=1)
        u = drawn("focus crop", self.crop.draws)
        affine, factors, exhausted, blank = self.crop.draw(u, sizes, maps, self.shape)
        params = only_geometry(self.shape, sizes, affine, factors)
        if self.intensity:
            params = replace(params, luts=self.intensity.draw(grey))
        if self.blur:
            params = replace(params, kernels=self.blur.draw(soft))
        if self.noise:
            params = replace(params, noise=self.noise.draw(grain))
        told = exhausted * CROP_EXHAUSTED + blank * BLANK
        seen = _Seen(maps, params, self.saliency.side)
        if self.cutout:
            u = drawn("focus cutout", self.cutout.draws)
            holes, exhausted = self.cutout.draw(u, seen.where(self.cutout.fires(u)), self.shape)
            params = replace(params, holes=holes, fill=self.cutout.fill)
            told += exhausted * CUTOUT_EXHAUSTED
        if self.drop:
            u = drawn("focus drop", self.drop.draws)
            shade = self.drop.draw(u, seen.where(self.drop.fires(u)), self.shape)
            params = replace(params, shade=shade)
        return replace(params, exhausted=told.astype(np.uint8))


class _Seen:
    """What views show of the maps, made once and where it is asked for."""

    def __init__(self, maps: Maps, params: ViewParams, side: int) -> None:
        self._maps, self._params, self._side = maps, params, side
        self._made: dict[int, npt.NDArray[np.float32]] = {}

    def where(self, which_B: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.float32] | None]:
        """[side, side] of each row chosen, None of the others and where there is no map."""
        return [self._of(row) if wanted else None for row, wanted in enumerate(which_B)]

    def _of(self, row: int) -> npt.NDArray[np.float32] | None:
        map_SS = with_mass(self._maps[row])
        if map_SS is not None and row not in self._made:
            self._made[row] = map_seen(map_SS, self._params, row, self._side)
        return self._made.get(row)
