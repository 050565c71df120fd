"""Left and right exchanged in views that were drawn, whatever recipe drew them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.params import ViewParams


def mirrored(params: ViewParams, which_B: npt.NDArray[np.bool_]) -> ViewParams:
    """The same views, in the rows chosen with column x showing what column w - 1 - x showed.

    Exact: the map's constant term, which holds the rounding offset, moves by a whole number of
    columns and both renderers read the very same points. Greys and blur come after it and are the
    same from both sides; noise and holes stay where they are in the view. What was chosen by
    saliency goes with what it was chosen for: a shade, and the holes of a focus view.
    """
    affine = params.affine.copy()
    affine[which_B, :, 2] += affine[which_B, :, 0] * np.int32(params.shape[1] - 1)
    affine[which_B, :, 0] *= -1
    shade, holes = params.shade, params.holes
    if params.exhausted is not None:
        holes = holes.copy()  # left and right are 1 and 3
        holes[which_B, :, 1::2] = params.shape[1] - holes[which_B, :, 3::-2]
    if shade is not None:
        shade = np.where(which_B[:, None, None], shade[:, :, ::-1], shade)
    return replace(params, affine=affine, shade=shade, holes=holes)
