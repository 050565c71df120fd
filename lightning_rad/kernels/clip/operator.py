"""Both directions as one differentiable operation; on one process both come out of each pass.

Over ranks a rank has its images against all texts and its texts against all images. Its rows'
gradients need the log-sum-exps of the other side's rows, six numbers a pair, and no gradient
of a key is made, sent or summed.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Pairs, Sums, Weights, operator

Gather = Callable[[Tensor], Tensor]
"""Rows of this rank to those of all ranks, in rank order, without gradient."""


class CLIP(torch.autograd.Function):
    """Losses [N] of images and of texts."""

    @staticmethod
    def forward(
        ctx: Any,
        image_ND: Tensor,
        text_ND: Tensor,
        scale: Tensor,
        images_MD: Tensor,
        texts_MD: Tensor,
        ids_M: Tensor,
        groups_M: Tensor | None,
        offset: int,
        in_range: bool,
        gather: Gather,
    ) -> tuple[Tensor, Tensor]:
        """images_MD and texts_MD hold image_ND and text_ND at offset."""
        ctx.place = offset, in_range, gather
        tensors = image_ND, text_ND, scale, images_MD, texts_MD, ids_M, groups_M
        by_image, by_text = _pairs(tensors, offset, in_range)
        if by_text is None:
            image, text = operator.sums(by_image, both=True)
        else:
            image, text = operator.sums(by_image)[0], operator.sums(by_text)[0]
        ctx.save_for_backward(*tensors, *image, *text)
        return image.loss(), text.loss()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Of the sum of all ranks' losses, each with the weight its rank gives it.

        The gradient of 1/t: averaged over ranks, as gradients of parameters are, what each of them
        gives makes up the whole.
        """
        offset, in_range, gather = ctx.place
        tensors, sums = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        by_image, by_text = _pairs(tensors, offset, in_range)
        image = Sums(*sums[:3]).weights(upstream[0])
        text = Sums(*sums[3:]).weights(upstream[1])
        if by_text is None:
            d_image, d_text, to_scale = operator.gradients(by_image, image, text, both=True)
        else:
            numbers = gather(torch.stack([*image, *text], dim=1)).unbind(1)
            d_image, _, from_image = operator.gradients(by_image, image, Weights(*numbers[3:]))
            d_text, _, from_text = operator.gradients(by_text, text, Weights(*numbers[:3]))
            to_scale = (from_image + from_text) / 2
        return d_image, d_text, to_scale, None, None, None, None, None, None, None


def _pairs(tensors: Sequence[Any], offset: int, in_range: bool) -> tuple[Pairs, Pairs | None]:
    """Images against texts and, where others hold some of them, texts against images."""
    image_ND, text_ND, scale, images_MD, texts_MD, ids_M, groups_M = tensors
    own = slice(offset, offset + len(image_ND))
    groups_N = None if groups_M is None else groups_M[own]
    rest = ids_M[own], ids_M, groups_N, groups_M, -1, scale, in_range
    by_image = Pairs(image_ND, texts_MD, *rest)
    return by_image, None if len(image_ND) == len(ids_M) else Pairs(text_ND, images_MD, *rest)
