"""Our sigmoid pairs against SigLipLoss of open_clip, and against a loop at SigLIP's start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.sigmoid_pairs import sigmoid_pairs


def towers(count: int, dim: int) -> list[Tensor]:
    """Images and texts that lie near each other, as in training, of any length."""
    generator = torch.Generator().manual_seed(count * dim)
    study, *noise = torch.randn(3, count, dim, generator=generator, dtype=torch.float64)
    lengths = torch.rand(count, 1, generator=generator, dtype=torch.float64) + 0.1
    return [((study + part) * lengths).requires_grad_() for part in noise]


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("scale", [2.0, 10.0, 14.0, 50.0])
@pytest.mark.parametrize("start", [-10.0, 0.0, 1.5])
@pytest.mark.parametrize(("count", "dim"), [(2, 3), (7, 5), (33, 16), (9, 64)])
def test_value_and_every_gradient_are_those_of_open_clip(
    count: int, dim: int, start: float, scale: float, backend: Any
) -> None:
    """open_clip takes unit rows, exp(log_scale) and the bias."""
    image_ND, text_ND = towers(count, dim)
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    learned = Learned((-log_scale).exp(), 0.01)
    got = sigmoid_pairs(image_ND, text_ND, temperature=learned, bias=bias, backend=backend)
    wanted = SigLipLoss()(normalize(image_ND), normalize(text_ND), log_scale.exp(), bias)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
    leaves = image_ND, text_ND, log_scale, bias
    theirs = torch.autograd.grad(wanted, leaves)
    assert min(float(g.abs().max()) for g in theirs) > 1e-8
    torch.testing.assert_close(torch.autograd.grad(got, leaves), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_at_the_start_of_siglip_it_is_the_loop_over_pairs(backend: Any) -> None:
    """Scale 10, bias -10: a negative costs 4.5e-5 or less, a positive 10."""
    image_ND, text_ND = (x.detach() for x in towers(11, 6))
    u, v = normalize(image_ND).tolist(), normalize(text_ND).tolist()
    losses = []
    for i in range(11):
        for j in range(11):
            logit = 10 * math.fsum(a * b for a, b in zip(u[i], v[j], strict=True)) - 10
            y = 1 if i == j else -1
            losses.append(math.log1p(math.exp(-y * logit)))
    got = sigmoid_pairs(image_ND, text_ND, temperature=0.1, bias=-10.0, backend=backend)
    assert got.item() == pytest.approx(math.fsum(losses) / 11, rel=1e-14)
