"""Where a reader would look: a round over the chest, with longer stays on what is abnormal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_rad.schema import Box, Fixation
from lightning_rad.sharding.sources.synthetic.chest import Chest
from lightning_rad.sharding.sources.synthetic.projection import Camera
from lightning_rad.sharding.sources.synthetic.solids import LEFT, RIGHT, Array


def look(
    rng: np.random.Generator, chest: Chest, camera: Camera, boxes: Sequence[Box]
) -> tuple[Fixation, ...]:
    """A scan path over one picture, in order of time, inside the picture."""
    stops = _round(chest, camera)
    stops = stops[rng.random(len(stops)) < 0.8]
    path = [(x, y, False) for x, y in stops + rng.normal(0.0, 0.025, stops.shape)]
    for box in boxes:
        centre = np.array([box.x + box.w / 2, box.y + box.h / 2]) / camera.size
        extent = np.array([box.w, box.h]) / camera.size
        at = int(rng.integers(len(path) + 1))
        visits = centre + 0.2 * extent * rng.standard_normal((int(rng.integers(2, 6)), 2))
        path[at:at] = [(x, y, True) for x, y in visits]
    edge = 0.5 / camera.size
    return tuple(
        Fixation(
            x=float(np.clip(x, edge, 1.0 - edge)),
            y=float(np.clip(y, edge, 1.0 - edge)),
            seconds=float(rng.gamma(4.0, 0.11 if held else 0.06) + 0.08),
        )
        for x, y, held in path
    )


def _round(chest: Chest, camera: Camera) -> Array:
    """[n, 2] stops of the usual search: apices, lung fields, hila, heart, costophrenic angles."""
    body = chest.body
    floor = min(float(lung.dome.y[0]) for lung in chest.lungs)
    points = [[0.0, 0.1 * body.height, 0.0], [0.0, 0.27 * body.height, -1.6], chest.heart.centre]
    for height, across in ((0.12, 0.42), (0.4, 0.3), (0.4, 0.7), (0.65, 0.65), (0.9, 0.6)):
        points += [[s * across * body.width, height * floor, 0.0] for s in (RIGHT, LEFT)]
    points += [[s * 0.9 * body.width, 0.95 * body.height, -3.0] for s in (RIGHT, LEFT)]
    column, row, _ = camera.pixels(np.array(points))
    return np.stack([column, row], axis=1) / camera.size
