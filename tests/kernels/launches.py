"""Calls that make the Triton forms launch every kernel in every way they are shipped."""

from __future__ import annotations

from unittest import mock

import numpy as np
import torch

from lightning_rad.kernels.info_nce import fused_triton as info_nce_triton
from lightning_rad.kernels.pairs import Pairs, Weights
from lightning_rad.kernels.pairs import fused_triton as pairs_triton
from lightning_rad.kernels.render import fused_triton as render_triton
from lightning_rad.kernels.render.drawn import take
from lightning_rad.kernels.sigmoid_pairs import fused_triton as sigmoid_triton
from lightning_rad.kernels.sigmoid_pairs.reference import Side

SHAPES = (
    *((features, torch.bfloat16) for features in (32, 128, 256, 768)),
    *((features, torch.float16) for features in (128, 768)),
    *((features, torch.float32) for features in (32, 768)),
)
"""Features and types that differ in a tile or in how it is run."""


def launch_everything() -> None:
    """Results mean nothing where launches are not real."""

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # the vendor's
        return a.new_zeros(len(a), b.shape[1], dtype=torch.float32)

    with (
        mock.patch.object(pairs_triton, "product", product),
        mock.patch.object(sigmoid_triton, "product", product),
    ):
        for features, dtype in SHAPES:
            launch_pairs(features, dtype)
            launch_sigmoid_pairs(features, dtype)
            launch_info_nce(features, dtype)
    launch_render()


def launch_pairs(features: int, dtype: torch.dtype) -> None:
    """NT-Xent on one process and over ranks, CLIP on one, with groups and without."""
    x, y = torch.zeros(2, 1024, features, dtype=dtype)
    ids, scale = torch.arange(1024), torch.ones(())
    every = Weights(*torch.ones(3, 1024))
    for rows, own, grouped, in_range in (
        (1024, 0, False, True),
        (512, 0, True, False),
        (1024, -1, True, True),
        (1024, -1, False, False),
    ):
        groups = (ids, ids) if grouped else (None, None)
        keys = x if own == 0 else y
        mine = Weights(*(w[:rows] for w in every))
        pairs = Pairs(x[:rows], keys, ids[:rows], ids, *groups, own, scale, in_range)
        pairs_triton.sums(pairs, both=own < 0)
        pairs_triton.gradients(pairs, mine, every, both=own < 0)


def launch_sigmoid_pairs(features: int, dtype: torch.dtype) -> None:
    x, y = torch.zeros(2, 1024, features, dtype=dtype)
    ids, one = torch.arange(1024), torch.ones(())
    for labels in ((None, None), (ids, None), (ids, ids)):
        sides = Side(x, *labels), Side(y, *labels)
        sigmoid_triton.one_pass(*sides, one, one, keys_too=True, unit_keys=False)


def launch_info_nce(features: int, dtype: torch.dtype) -> None:
    """A queue in the type of the queries and in float32, and MoCo v3's keys of the batch."""
    query, scale = torch.zeros(512, features, dtype=dtype), torch.ones(())
    for keys, offset, in_range in (
        (query.repeat(16, 1), -1, True),
        (query.float().repeat(16, 1), 512, False),
    ):
        info_nce_triton.one_pass(query, query, keys, scale, offset, in_range)


def launch_render() -> None:
    """Blurred or sharp, noisy or not, shaded or not, images chosen or in turn."""
    canvas, tile = torch.zeros(2, 320, 400, dtype=torch.uint8), torch.zeros(512, 512).short()
    one = np.ones(2, np.int32)
    for blurred, noisy, chosen in ((1, 1, True), (0, 1, False), (0, 0, True), (1, 0, False)):
        drawn = take(
            canvas.device,
            (224, 224),
            affine=np.ones((2, 2, 3), np.int32),
            sizes=np.full((2, 2), 320, np.int32),
            factors=one,
            luts=np.zeros((2, 256), np.uint8),
            kernels=np.tile(np.array([blurred, 256 - 2 * blurred, blurred], np.int32), (2, 1)),
            noise=np.full((2, 3), noisy, np.int32),
            holes=np.zeros((2, 3, 4), np.int32),
            shade=np.zeros((2, 224, 224), np.uint8) if chosen else None,
            fill=0,
        )
        render_triton.views_of(canvas, torch.tensor([1, 0]) if chosen else None, drawn, tile)
