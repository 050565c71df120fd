"""Losses of images and texts, timed: CLIP's two-sided cross entropy and SigLIP's sigmoid of pairs.

Shape letters: N pairs, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from benchmarks.rows import BIAS, LOW, T, logits, ours_in, own, random_rows, unit
from benchmarks.ways import Way, Ways, leaf, optional
from lightning_rad.kernels.choice import Backend
from lightning_rad.losses.clip import clip
from lightning_rad.losses.sigmoid_pairs import sigmoid_pairs


def sides(pairs: int, dim: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Images and texts."""
    first, second = (random_rows(pairs, dim, device=device, dtype=dtype, seed=s) for s in (0, 1))
    return first, second


def two_sides(
    pairs: int, dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Ways:
    """The loss of CLIP."""
    rows = sides(pairs, dim, device, dtype)
    same_N = torch.arange(pairs, device=device)

    def dense(image_ND: Tensor, text_ND: Tensor) -> Tensor:
        s_NN = logits(unit(image_ND), unit(text_ND))
        return (cross_entropy(s_NN, same_N) + cross_entropy(s_NN.T, same_N)) / 2

    ways: Ways = {"dense": Way(dense, tuple(map(leaf, rows)), LOW)}

    def ours(image_ND: Tensor, text_ND: Tensor, backend: Backend) -> Tensor:
        sides_ND = image_ND, text_ND
        return clip(*sides_ND, *sides_ND, ids_M=same_N, temperature=T, backend=backend)

    ways |= ours_in(own(dtype), ours, rows)
    theirs = optional("open_clip.loss", "ClipLoss")
    if isinstance(theirs, str):
        return ways | {"open_clip": theirs}
    module = theirs()
    public = Way(lambda i, t: module(unit(i), unit(t), 1 / T), tuple(map(leaf, rows)), LOW)
    return ways | {"open_clip": public}


def sigmoid(
    pairs: int, dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Ways:
    """The loss of SigLIP."""
    rows = sides(pairs, dim, device, dtype)

    def dense(image_ND: Tensor, text_ND: Tensor) -> Tensor:
        s_NN = logits(unit(image_ND), unit(text_ND)) + BIAS
        sign_NN = 2 * torch.eye(pairs, device=device) - 1
        return -logsigmoid(sign_NN * s_NN).sum() / pairs

    ways: Ways = {"dense": Way(dense, tuple(map(leaf, rows)), LOW)}

    def ours(image_ND: Tensor, text_ND: Tensor, backend: Backend) -> Tensor:
        return sigmoid_pairs(image_ND, text_ND, temperature=T, bias=BIAS, backend=backend)

    ways |= ours_in(own(dtype), ours, rows)
    theirs = optional("open_clip.loss", "SigLipLoss")
    if isinstance(theirs, str):
        return ways | {"open_clip": theirs}
    module = theirs()
    public = Way(lambda i, t: module(unit(i), unit(t), 1 / T, BIAS), tuple(map(leaf, rows)), LOW)
    return ways | {"open_clip": public}
