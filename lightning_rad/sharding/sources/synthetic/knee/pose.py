"""How one picture of a knee is taken: framing, position, exposure, collimation and lead letters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from lightning_rad.modalities.radiograph import Pixels
from lightning_rad.sharding.sources.synthetic.detector import Exposure, add_marker, draw_exposure
from lightning_rad.sharding.sources.synthetic.knee.joint import Build
from lightning_rad.sharding.sources.synthetic.projection import Camera, Map
from lightning_rad.sharding.sources.synthetic.solids import LEFT, Array

_OTHER: Final = 0.3
_COLLIMATED: Final = 0.6
_STANDING: Final = 0.3
_UNMARKED: Final = 0.08
"""Shares of the pictures that may show the other leg, have dark borders, a second marker, none."""


@dataclass(frozen=True)
class Pose:
    """A camera whose picture lies turned.

    camera: before the turn. roll: by how much the leg leans in the picture, radians. other: cm to
    the other leg, None where it stands apart. borders: pixels of the picture that the collimator
    hides at its left, top, right and bottom.
    """

    camera: Camera
    roll: float
    other: float | None
    borders: tuple[int, int, int, int]

    @property
    def wide(self) -> Camera:
        """The camera with a field that holds the turned picture."""
        more = abs(np.cos(self.roll)) + abs(np.sin(self.roll))
        spare = int(np.ceil((more - 1.0) * self.camera.size / 2))
        return replace(self.camera, size=self.camera.size + 2 * spare)

    def turned(self, seen: Map) -> Map:
        """[H, W] of the picture from a map of the wide camera."""
        n, wide = self.camera.size, seen.shape[0]
        c, s = np.cos(self.roll), np.sin(self.roll)
        back = np.array([[c, s, 0.0], [-s, c, 0.0]])
        # pixel centres lie at whole numbers here
        back[:, 2] = (wide - 1) / 2 - back[:, :2].sum(axis=1) * (n - 1) / 2
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        turned = cv2.warpAffine(seen, back, (n, n), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(turned, np.float32)

    def pixels(self, points: Array) -> tuple[Array, Array]:
        """Column and row (continuous, pixel centres at .5) of points [n, 3] in the picture."""
        column, row, _ = self.camera.pixels(points)
        half = self.camera.size / 2
        c, s = np.cos(self.roll), np.sin(self.roll)
        x, y = column - half, row - half
        return half + c * x - s * y, half + s * x + c * y

    def inside(self, x: float, y: float) -> tuple[float, float]:
        """Fractions of the picture of a point that is given in those of what is not hidden."""
        left, top, right, bottom = (border / self.camera.size for border in self.borders)
        return left + x * (1.0 - left - right), top + y * (1.0 - top - bottom)

    def collimated(self, pixels: Pixels) -> Pixels:
        """The picture with its hidden borders black."""
        left, top, right, bottom = self.borders
        kept = np.zeros_like(pixels)
        inside = (slice(top, len(pixels) - bottom), slice(left, len(pixels) - right))
        kept[inside] = pixels[inside]
        return kept


def draw_pose(rng: np.random.Generator, build: Build, size: int) -> Pose:
    """Draw how one picture is taken; nothing of it depends on how worn the knee is."""
    field = float(rng.uniform(11.6, 15.6)) * build.scale
    # the joint stays in the picture, which is centred on it by eye
    sideways = float(np.clip(rng.normal(0.0, 0.6), -1.2, 1.2))
    camera = Camera(
        view="AP",
        size=size,
        pitch=field / size,
        turn=float(np.clip(rng.normal(0.0, 0.11), -0.3, 0.3)),
        shift=(sideways, float(np.clip(rng.normal(0.0, 1.6), -3.2, 3.2))),
        beam=-0.4,
        distance=115.0,
        gap=7.0,
    )
    roll = float(np.clip(rng.normal(0.0, 0.085), -0.2, 0.2))
    other = float(rng.uniform(-1.5, 2.0)) if rng.random() < _OTHER else None
    pose = Pose(camera, roll, other, (0, 0, 0, 0))
    drawn = rng.uniform(0.0, 0.12, 4) * (rng.random() < _COLLIMATED)
    return replace(pose, borders=_borders(pose, build, drawn))


def _borders(pose: Pose, build: Build, wanted: Array) -> tuple[int, int, int, int]:
    """The wanted shares in pixels, less where they would hide a part of any joint."""
    size = pose.camera.size
    corners = build.scale * np.array(
        [[x, y, 0.0] for x in (-4.6, 4.6) for y in (-1.9, 1.2)], np.float64
    )
    column, row = pose.pixels(corners)
    free = [column.min(), row.min(), size - column.max(), size - row.max()]
    left, top, right, bottom = (
        int(max(min(share * size, room), 0.0))
        for share, room in zip(wanted.tolist(), free, strict=True)
    )
    return left, top, right, bottom


def draw_knee_exposure(rng: np.random.Generator) -> Exposure:
    """Draw an exposure; a limb scatters less than a chest, and its window ends above the bone."""
    drawn = draw_exposure(rng, portable=False)
    return replace(
        drawn,
        scatter=0.35 * drawn.scatter,
        window=(float(rng.uniform(2.0, 14.0)), float(rng.uniform(98.6, 99.9))),
        gamma=float(np.exp(rng.normal(0.1, 0.22))),
        contrast=float(rng.uniform(0.8, 1.1)),
    )


def slope(rng: np.random.Generator, attenuation: Map) -> None:
    """Let the beam be weaker towards one side, as that of any anode is, and the leg unevenly thick.

    attenuation: changed in place, by one number for every column and one for every row.
    """
    across, down = rng.normal(0.0, 0.1, 2)
    place = np.linspace(-1.0, 1.0, len(attenuation), dtype=np.float32)
    attenuation += np.float32(across) * place + np.float32(down) * place[:, None]


def mark(rng: np.random.Generator, attenuation: Map, pose: Pose, side: int) -> None:
    """Lay the letter of the side on the detector, and sometimes that the patient stands."""
    across = 0.92 if rng.random() < 0.5 else 0.08
    heights = [float(rng.uniform(0.06, 0.22)), float(rng.uniform(0.78, 0.95))]
    upper = int(rng.random() < 0.25)
    letter, second = rng.random() >= _UNMARKED, rng.random() < _STANDING
    text = str(rng.choice(["WB", "AP", "ERECT"]))
    if letter:
        place = pose.inside(across, heights[upper])
        add_marker(attenuation, pose.camera, "L" if side == LEFT else "R", place)
    if second:
        place = pose.inside(0.5 + 0.8 * (0.5 - across), heights[1 - upper])
        add_marker(attenuation, pose.camera, text, place)
