"""Maps of readers that looked somewhere, and views drawn by them."""

import numpy as np

from lightning_rad.kernels.render.units import UNIT_BITS
from lightning_rad.modalities.gaze import Saliency, heat_map

SIZE, B = (150, 190), 100
SALIENCY = Saliency(side=48)
FIELDS = ("factors", "affine", "luts", "kernels", "noise", "holes", "shade", "exhausted")


def looks(rows=B, size=SIZE, side=48, seed=0):
    """Maps of a few fixations each, somewhere in the middle part."""
    rng = np.random.default_rng(seed)
    return [
        heat_map(
            [(*rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 1)) for _ in range(rng.integers(3, 8))],
            size,
            side=side,
            spread=0.03,
        )
        for _ in range(rows)
    ]


def drawn(view, maps, size=SIZE, seed=3, epoch=0, first=0, number=0):
    rows = np.arange(first, first + len(maps))
    sizes = np.tile(np.array(size), (len(maps), 1))
    names = {"seed": seed, "epochs": rows * 0 + epoch, "units": rows, "view": number}
    return view.draw_focused(sizes, maps, **names)


def has(params, bit):
    return (params.exhausted & bit) > 0


def pictures(maps, size=SIZE):
    """Each map drawn as a picture of 8 bits."""
    rows = np.arange(size[0]) * len(maps[0]) // size[0]
    columns = np.arange(size[1]) * len(maps[0]) // size[1]
    return [np.rint(255 * (m / m.max())[rows][:, columns]).astype(np.uint8) for m in maps]


def magnification(params):
    """[B] pixels of the picture, in area, that a pixel of the view shows."""
    linear = params.affine[:, :, :2] * params.factors[:, None, None] / 2.0**UNIT_BITS
    return np.abs(np.linalg.det(linear))


def assert_same(one, other, rows=slice(None)):
    for name in FIELDS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a[rows], b, err_msg=name)
