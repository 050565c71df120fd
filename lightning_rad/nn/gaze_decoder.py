"""From the patches of an encoder to a map of attention.

Shape letters: B images, P patches, D features, W width, S side of the map, G side of the grid.
"""

from __future__ import annotations

import math
from typing import Final

from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightning_rad.nn.blocks import Part

GROUPS: Final = 8


class GazeDecoder(Part):
    """Two convolutions, bilinear upsampling between them, and one score a cell.

    The patches, as a square grid, go through a 3x3 convolution, group norm and GELU; are enlarged
    to the map's side; go through the same once more; a 1x1 convolution makes the scores. No skip
    connections: attention is smooth, and the maps that are wanted are coarse. Group norms, so that
    a row's map does not depend on its batch.

    in_features: width of a patch. width: channels in between, a multiple of 8. side: cells along
    each side of the map. Raises ValueError for sizes that do not go and for patches that are no
    square grid.
    """

    def __init__(self, in_features: int, *, width: int = 64, side: int = 32) -> None:
        super().__init__()
        if width < GROUPS or width % GROUPS:
            raise ValueError(f"decoder.width: {width} is not a multiple of {GROUPS}")
        if side < 1:
            raise ValueError(f"decoder.side: {side} is not at least 1")
        self.side = side
        self.patches = _stage(in_features, width)
        self.cells = _stage(width, width)
        self.score = nn.Conv2d(width, 1, 1, bias=False)  # a softmax does not see an offset

    def forward(self, tokens_BPD: Tensor) -> Tensor:
        """Scores [B, S, S]; their softmax over the map is the density of attention."""
        count = tokens_BPD.shape[1]
        grid = math.isqrt(count)
        if grid * grid != count:
            raise ValueError(f"decoder: {count} patches are no square grid; the views are square")
        x_BWGG = self.patches(tokens_BPD.transpose(1, 2).reshape(len(tokens_BPD), -1, grid, grid))
        x_BWSS = interpolate(x_BWGG, (self.side, self.side), mode="bilinear")
        scores_BSS: Tensor = self.score(self.cells(x_BWSS)).squeeze(1)
        return scores_BSS


def _stage(in_channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, width), nn.GELU())
