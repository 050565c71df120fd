"""The view for training: a random crop with random exposure, blur, noise and holes."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Final, final

import numpy as np

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.cutout import Cutout
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.params import ViewParams, only_geometry
from lightning_rad.data.views.recipe import Ints, ViewRecipe
from lightning_rad.randomness import uniforms

_STARTS: Final = tuple(accumulate(part.draws for part in (Crop, Intensity, Blur, Noise)))


@final
class RandomView(ViewRecipe):
    """A random view; what is left out is not done.

    Each part has random numbers of its own: changing or adding a part leaves the others' draws.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
        crop: Which part of the image is shown.
        intensity: Changes of exposure and windowing.
        blur: Gaussian blur.
        noise: White Gaussian noise.
        cutout: Rectangles painted over.
    """

    def __init__(
        self,
        size: int,
        *,
        crop: Crop,
        intensity: Intensity | None = None,
        blur: Blur | None = None,
        noise: Noise | None = None,
        cutout: Cutout | None = None,
    ) -> None:
        super().__init__(size)
        self.crop = crop
        self.intensity = intensity
        self.blur = blur
        self.noise = noise
        self.cutout = cutout

    def draw(self, sizes: Ints, *, seed: int, epochs: Ints, units: Ints, view: int) -> ViewParams:
        """See `ViewRecipe.draw`."""
        n = _STARTS[-1] + (self.cutout.draws if self.cutout else 0)
        drawn = uniforms(seed, epochs, units, view, n)
        place, grey, soft, grain, hole = np.split(drawn, _STARTS, axis=1)
        affine, factors = self.crop.draw(place, sizes, self.shape)
        params = only_geometry(self.shape, sizes, affine, factors)
        if self.intensity:
            params = replace(params, luts=self.intensity.draw(grey))
        if self.blur:
            params = replace(params, kernels=self.blur.draw(soft))
        if self.noise:
            params = replace(params, noise=self.noise.draw(grain))
        if self.cutout:
            holes = self.cutout.draw(hole, self.shape)
            params = replace(params, holes=holes, fill=self.cutout.fill)
        return params
