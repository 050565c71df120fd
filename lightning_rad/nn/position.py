"""Absolute position embeddings of transformers: fixed sines and cosines, and other grids.

Shape letters: P prefix tokens (class token, registers), L patches, D features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

POS_EMBED = "pos_embed"
"""What timm calls the parameter."""


class Positions(NamedTuple):
    """The position embedding of a network, and which of its tokens lies where."""

    embedding_1TD: nn.Parameter
    """Prefix tokens first, then the patches row by row: T = P + L."""
    grid: tuple[int, int]
    """Patches down and across."""
    prefix: int
    """P: how many tokens without a place have a row of the embedding."""


def positions_of(net: nn.Module) -> Positions | None:
    """The learned or fixed embedding `pos_embed` [1, T, D] over one grid; None for any other."""
    embedding = getattr(net, POS_EMBED, None)
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if not isinstance(embedding, nn.Parameter) or embedding.ndim != 3 or grid is None:
        return None
    down, across = grid
    # some models (CaiT) add their class token later, without a position
    prefix = embedding.shape[1] - down * across
    if prefix not in (0, getattr(net, "num_prefix_tokens", 0)):
        return None
    return Positions(embedding, (down, across), prefix)


def fix_sincos(net: nn.Module) -> None:
    """Replace the position embedding by fixed sines and cosines, zero for prefix tokens.

    As in MoCo v3 (arXiv:2104.02057; vits.py of facebookresearch/moco-v3). A first half of the
    features holds the row of a patch, the second its column, as its code has it for the square
    grids it is used with (names and axes are swapped there, on other grids it mixes them up). Does
    not learn. Raises ValueError for a network without a `pos_embed` over one grid, or one whose
    width 4 does not divide.
    """
    positions = positions_of(net)
    if positions is None:
        raise ValueError("position: sincos needs a transformer with a pos_embed over one grid")
    embedding_1TD, grid, prefix = positions
    width = embedding_1TD.shape[2]
    if width % 4:
        raise ValueError(f"position: sincos needs a width that 4 divides, not {width}")
    with torch.no_grad():
        embedding_1TD.zero_()
        embedding_1TD[0, prefix:] = _sincos(grid, width)
    embedding_1TD.requires_grad_(False)


def _sincos(grid: tuple[int, int], width: int) -> Tensor:
    """[L, D] with wavelengths from 2 pi to nearly 10,000 x 2 pi patches."""
    quarter = width // 4
    frequencies_Q = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    down, across = (torch.arange(n, dtype=torch.float64) for n in grid)
    rows_L, columns_L = torch.meshgrid(down, across, indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies_Q for place in (rows_L, columns_L)]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)


def resampled(found: Tensor, net: nn.Module) -> tuple[Tensor, str] | None:
    """`found`, an embedding of another square grid, on the grid of `net`, and what was done.

    None where only a grid is not what differs.
    """
    positions = positions_of(net)
    if positions is None or found.shape == positions.embedding_1TD.shape or found.ndim != 3:
        return None
    patches = found.shape[1] - positions.prefix
    side = math.isqrt(max(patches, 0))
    if side < 1 or side**2 != patches or found.shape[2] != positions.embedding_1TD.shape[2]:
        return None
    moved: Tensor = resample_abs_pos_embed(
        found, list(positions.grid), num_prefix_tokens=positions.prefix
    )
    down, across = positions.grid
    return moved, f"{POS_EMBED} resampled from {side}x{side} to {down}x{across} patches"
