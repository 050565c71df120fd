"""Our CLIP loss against ClipLoss of open_clip, value and every gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn.functional import normalize

from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.clip import clip


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("scale", [2.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize(("count", "dim"), [(1, 3), (7, 5), (33, 16), (600, 24)])
def test_value_and_every_gradient_are_those_of_open_clip(
    count: int, dim: int, scale: float, backend: Any
) -> None:
    """open_clip takes unit rows and exp(log_scale)."""
    generator = torch.Generator().manual_seed(count * dim)
    study, *noise = torch.randn(3, count, dim, generator=generator, dtype=torch.float64)
    image_ND, text_ND = (((study + part) * 3).requires_grad_() for part in noise)
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64, requires_grad=True)
    got = clip(
        image_ND,
        text_ND,
        image_ND,
        text_ND,
        ids_M=torch.arange(count),
        temperature=Learned((-log_scale).exp(), 0.01),
        backend=backend,
    )
    wanted = ClipLoss()(normalize(image_ND), normalize(text_ND), log_scale.exp())
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)
    leaves = image_ND, text_ND, log_scale
    theirs = torch.autograd.grad(wanted, leaves)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), theirs, rtol=1e-9, atol=1e-12)
