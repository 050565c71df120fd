"""Where a reader would look at a knee: along both joint spaces and at the margins, seldom else."""

from __future__ import annotations

import numpy as np

from lightning_rad.schema import Fixation
from lightning_rad.sharding.sources.synthetic.knee.bones import Knee
from lightning_rad.sharding.sources.synthetic.knee.joint import BONES, LATERAL, MEDIAL
from lightning_rad.sharding.sources.synthetic.knee.pose import Pose


def look(rng: np.random.Generator, knee: Knee, pose: Pose) -> tuple[Fixation, ...]:
    """A scan path over one picture, in order of time, inside the picture."""
    stops = _stops(knee)
    at = rng.permutation(len(stops))
    points = np.array([knee.point(stops[k][0], stops[k][1]) for k in at])
    where = np.stack(pose.pixels(points), axis=1) / pose.camera.size
    where += rng.normal(0.0, 0.018, where.shape)
    edge = 0.5 / pose.camera.size
    fixations = []
    for k, (x, y) in zip(at, where.tolist(), strict=True):
        seconds = float(rng.gamma(4.0, 0.06 * stops[k][2]) + 0.08)
        if rng.random() < stops[k][3]:
            x_in, y_in = np.clip([x, y], edge, 1.0 - edge).tolist()
            fixations.append(Fixation(x_in, y_in, seconds))
    return tuple(fixations)


def _stops(knee: Knee) -> list[tuple[float, float, float, float]]:
    """x and y of the knee's frame, how long is stayed there (1 is usual), and how often."""
    wear = knee.wear
    stops: list[tuple[float, float, float, float]] = []
    for m in (MEDIAL, LATERAL):
        stay = 1.0 + 1.2 * (0.52 - wear.space(m)) / 0.52
        stops += [(m * across, -wear.space(m) / 2, stay, 0.9) for across in (0.9, 1.9, 2.9)]
        for bone in BONES:
            spurs = [s for s in wear.spurs if (s.bone, s.margin) == (bone, m)]
            stay = 1.0 + 2.0 * max((s.length for s in spurs), default=0.0)
            y = -0.6 - wear.space(m) if bone == "femur" else 0.3
            stops.append((m * 3.8, y, stay, 0.85))
    stops.append((0.0, -0.1, 0.9, 0.6))
    stops += [(-0.25, -3.3 - knee.build.patella, 0.8, 0.4), (-3.2, 2.2, 0.7, 0.3)]
    stops += [(0.0, -5.5, 0.7, 0.2), (0.0, 4.5, 0.7, 0.25)]
    return stops
