"""What every view recipe offers: a size, a draw without pixels or state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.ranges import check_within

Ints = npt.NDArray[np.integer[Any]]


class ViewRecipe(ABC):
    """One view of an image; several views are a list of recipes, equal or not.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
    """

    def __init__(self, size: int) -> None:
        check_within("size", size, 1, 2048)
        self.size = size

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the view in pixels."""
        return self.size, self.size

    @abstractmethod
    def draw(self, sizes: Ints, *, seed: int, epochs: Ints, units: Ints, view: int) -> ViewParams:
        """Parameters of one view of each of B images: a pure function of its arguments, row by row.

        sizes: [B, 2], height and width of the images. epochs: [B], the data epoch in which the unit
        is read. units: [B], what the image is known by. view: its place among the unit's views.
        """
