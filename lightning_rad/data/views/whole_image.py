"""The view for evaluation: nothing random, nothing cut off."""

from __future__ import annotations

from typing import final

import numpy as np

from lightning_rad.data.views.geometry import affine_map
from lightning_rad.data.views.params import ViewParams, only_geometry
from lightning_rad.data.views.recipe import Ints, ViewRecipe


@final
class WholeImage(ViewRecipe):
    """The whole image, centred in the square, its aspect kept, the rest of the square 0.

    An image of exactly the view's size comes out unchanged.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
    """

    def draw(self, sizes: Ints, *, seed: int, epochs: Ints, units: Ints, view: int) -> ViewParams:  # noqa: ARG002
        """See `ViewRecipe.draw`; all but the sizes is ignored."""
        height_width = np.asarray(sizes, np.float64)
        side = np.broadcast_to(height_width.max(1, keepdims=True), height_width.shape)
        affine, factors = affine_map(
            height_width[:, ::-1] / 2,
            side,
            degrees=np.zeros(len(sizes)),
            mirrored=np.zeros(len(sizes), np.bool_),
            shape=self.shape,
        )
        return only_geometry(self.shape, sizes, affine, factors)
