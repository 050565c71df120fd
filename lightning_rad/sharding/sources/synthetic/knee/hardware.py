"""Metal in a shaft, away from the joint: it says nothing of the grade."""

from __future__ import annotations

import numpy as np

from lightning_rad.sharding.sources.synthetic.knee.bones import Knee
from lightning_rad.sharding.sources.synthetic.solids import Tube, tube

_SHARE = 0.08
"""Share of the knees with screws or a plate."""


def draw_hardware(rng: np.random.Generator, knee: Knee) -> tuple[Tube, ...]:
    """Screws across the tibial shaft or the femoral one, half of them through a plate."""
    if rng.random() >= _SHARE:
        return ()
    upper = rng.random() < 0.5
    heights = (-6.6 if upper else 5.2) + 0.95 * np.arange(int(rng.integers(2, 5)))
    heights = heights[(np.abs(heights) > 4.5)]
    tubes = []
    for y in heights:
        ends = [knee.point(-1.7, float(y) + 0.1), knee.point(1.9, float(y))]
        tubes.append(tube(np.linspace(ends[0], ends[1], 60), 0.17, 2.5))
    if rng.random() < 0.5:
        ends = [
            knee.point(-1.8, float(heights[0]) - 0.4),
            knee.point(-1.8, float(heights[-1]) + 0.4),
        ]
        tubes.append(tube(np.linspace(ends[0], ends[1], 60), 0.22, 2.5))
    return tuple(tubes)
