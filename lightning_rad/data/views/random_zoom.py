"""The random zoom and cut-out that focus crop and focus cut-out constrain: their control."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.recipe import Ints, ViewRecipe


@dataclass(frozen=True)
class ZoomCrop:
    """A window of the picture, of its aspect, anywhere; the picture is turned about its centre.

    Args:
        zoom: Sides of the picture over sides of the window, uniform in an interval within 1 to 10.
        rotation: Largest angle in degrees, either way, uniform, 0 to 180.
        flip: Probability of a left-right mirror, 0 to 1.
    """

    zoom: tuple[float, float] = (1.0, 2.0)
    rotation: float = 45.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        self.unconstrained()

    def unconstrained(self) -> FocusCrop:
        """The focus crop that takes the first window, whatever it shows."""
        how = {"zoom": self.zoom, "rotation": self.rotation, "flip": self.flip}
        return FocusCrop(probability=0.0, redraws=1, **how)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ZoomCutout:
    """One rectangle anywhere in a view, wholly inside it.

    Args:
        probability: Probability of a rectangle, 0 to 1.
        least: Shortest side, as a share of the view's, 0.01 to 1.
        most: Longest side, as a share of the view's, `least` to 1.
        fill: Grey that it is painted with, 0 to 255.
    """

    probability: float = 0.5
    least: float = 48 / 224
    most: float = 1.0
    fill: int = 0

    def __post_init__(self) -> None:
        self.unconstrained()

    def unconstrained(self) -> FocusCutout:
        """The focus cut-out that takes the first rectangle, whatever it covers."""
        how = {"least": self.least, "most": self.most, "fill": self.fill}
        return FocusCutout(self.probability, mass=1.0, redraws=1, **how)  # type: ignore[arg-type]


@final
class RandomZoom(ViewRecipe):
    """What FocusView draws where nothing is asked of its windows and rectangles; reads no gaze.

    Every number is drawn as there: views differ only in which window and rectangle is taken.

    Args:
        size: Side of the square view in pixels, 1 to 2048.
        crop: Which part of the image is shown.
        cutout: A rectangle painted over.
        intensity: Changes of exposure and windowing.
        blur: Gaussian blur.
        noise: White Gaussian noise.
    """

    def __init__(
        self,
        size: int,
        *,
        crop: ZoomCrop = ZoomCrop(),
        cutout: ZoomCutout | None = None,
        intensity: Intensity | None = None,
        blur: Blur | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(size)
        self.crop, self.cutout = crop, cutout
        self._view = FocusView(
            size,
            crop=crop.unconstrained(),
            cutout=None if cutout is None else cutout.unconstrained(),
            intensity=intensity,
            blur=blur,
            noise=noise,
        )

    def draw(self, sizes: Ints, *, seed: int, epochs: Ints, units: Ints, view: int) -> ViewParams:
        """See `ViewRecipe.draw`."""
        drawn = self._view.draw(sizes, seed=seed, epochs=epochs, units=units, view=view)
        return replace(drawn, exhausted=None)
