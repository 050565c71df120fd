"""Both directions as one differentiable operation; on one process both come out of each pass.

Over ranks a rank has its images against all texts and its texts against all images, which come at
once or in pieces. Its rows' gradients need the log-sum-exps of the other side's rows, six numbers a
pair, and no gradient of a key is made, sent or summed.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_rad.kernels.pairs import Sums, Weights, operator, pieces
from lightning_rad.kernels.pairs.pieces import Gather, Keys, Part


class CLIP(torch.autograd.Function):
    """Losses [N] of images and of texts."""

    @staticmethod
    def forward(
        ctx: Any,
        image_ND: Tensor,
        text_ND: Tensor,
        scale: Tensor,
        images_MD: Keys,
        texts_MD: Keys,
        ids_M: Tensor,
        groups_M: Tensor | None,
        offset: int,
        in_range: bool,
        gather: Gather,
    ) -> tuple[Tensor, Tensor]:
        """images_MD and texts_MD hold image_ND and text_ND at offset."""
        tensors = image_ND, text_ND, scale, ids_M, groups_M
        by_image, by_text = _sides(tensors, images_MD, texts_MD, offset, in_range)
        if len(image_ND) == len(ids_M):
            ((_, pairs),) = by_image
            image, text = operator.sums(pairs, both=True)
        else:
            image, text = pieces.sums(by_image), pieces.sums(by_text)
        gathered = [keys if isinstance(keys, Tensor) else None for keys in (images_MD, texts_MD)]
        ctx.rings = [None if isinstance(keys, Tensor) else keys for keys in (images_MD, texts_MD)]
        ctx.save_for_backward(*tensors, *image, *text, *gathered)
        ctx.place = offset, in_range, gather
        return image.loss(), text.loss()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Of the sum of all ranks' losses, each with the weight its rank gives it.

        The gradient of 1/t: averaged over ranks, as gradients of parameters are, what each of them
        gives makes up the whole.
        """
        offset, in_range, gather = ctx.place
        tensors, sums, gathered = (ctx.saved_tensors[a:b] for a, b in ((0, 5), (5, 11), (11, 13)))
        images_MD, texts_MD = (ring or x for ring, x in zip(ctx.rings, gathered, strict=True))
        by_image, by_text = _sides(tensors, images_MD, texts_MD, offset, in_range)
        image = Sums(*sums[:3]).weights(upstream[0])
        text = Sums(*sums[3:]).weights(upstream[1])
        if len(tensors[0]) == len(tensors[3]):
            ((_, pairs),) = by_image
            d_image, d_text, to_scale = operator.gradients(pairs, image, text, both=True)
        else:
            numbers = gather(torch.stack([*image, *text], dim=1)).unbind(1)
            d_image, from_image = pieces.gradients(by_image, image, Weights(*numbers[3:]))
            d_text, from_text = pieces.gradients(by_text, text, Weights(*numbers[:3]))
            to_scale = (from_image + from_text) / 2
        return d_image, d_text, to_scale, None, None, None, None, None, None, None


def _sides(
    tensors: Sequence[Any], images_MD: Keys, texts_MD: Keys, offset: int, in_range: bool
) -> tuple[Iterator[Part], Iterator[Part]]:
    """This rank's images against all texts, and its texts against all images."""
    image_ND, text_ND, scale, ids_M, groups_M = tensors
    how: dict[str, Any] = {"offset": offset, "among": False, "scale": scale, "in_range": in_range}
    by_image = pieces.parts(image_ND, texts_MD, ids_M, groups_M, **how)
    return by_image, pieces.parts(text_ND, images_MD, ids_M, groups_M, **how)
