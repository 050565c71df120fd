"""What a view recipe offers that looks where readers looked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.recipe import Ints, ViewRecipe
from lightning_rad.modalities.gaze import Saliency

Maps = Sequence[npt.NDArray[np.float32] | None]


class FocusRecipe(ViewRecipe):
    """One view of an image, drawn by a map of what readers looked at in it.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
        saliency: Which maps are read, and how fine they are.
    """

    def __init__(self, size: int, *, saliency: Saliency) -> None:
        super().__init__(size)
        self.saliency = saliency

    @abstractmethod
    def draw_focused(
        self, sizes: Ints, maps: Maps, *, seed: int, epochs: Ints, units: Ints, view: int
    ) -> ViewParams:
        """Parameters as `ViewRecipe.draw` gives them, with `exhausted` set.

        maps: of each of the B images [S, S] over all of it, of any scale, or None.
        """

    def draw(self, sizes: Ints, *, seed: int, epochs: Ints, units: Ints, view: int) -> ViewParams:
        """See `ViewRecipe.draw`; as for images that nobody looked at."""
        nobody: list[Any] = [None] * len(sizes)
        return self.draw_focused(sizes, nobody, seed=seed, epochs=epochs, units=units, view=view)
