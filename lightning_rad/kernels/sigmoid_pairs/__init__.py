"""Sigmoid loss of pairs of images and texts.

Shape letters: N images and M texts of this rank, P images and Q texts of all, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.labels import require_labels
from lightning_rad.kernels.sigmoid_pairs import operator, reference
from lightning_rad.kernels.sigmoid_pairs.reference import Side
from lightning_rad.kernels.temperature import Learned, scale_of

Features = tuple[Tensor, Tensor]
"""Images and texts."""

Labels = tuple[Tensor, Tensor]
"""int64, of the images and of the texts; of all ranks' where those are handed in."""


def sigmoid_pairs(
    image_ND: Tensor,
    text_MD: Tensor,
    *,
    temperature: float | Learned,
    bias: float | Tensor,
    gathered: Features | None = None,
    part: int = 0,
    ids: Labels | None = None,
    groups: Labels | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """-sum_ij log sigmoid(y_ij (s_ij / t + b)) / N over this rank's images i and all texts j.

    s is the cosine; y is 1 where image and text have the same id and -1 elsewhere. Without `ids`
    image i belongs to text i. A pair of one group but not of one id is left out, such as the
    report of another study that says the same; group 0 is unknown and leaves nothing out.

    image_ND, text_MD: floating, not of unit length: x / max(|x|, 1e-6) is part of the operation.
    gathered: the images [P, D] and texts [Q, D] of all ranks, values only, of which this rank's
    are the `part`-th N and M; then `ids` and `groups` are [P] and [Q]. bias: 0-d, learned or not.

    Gradient reaches images, texts, a learned temperature and a bias that asks for it. With
    `gathered` that of images and texts is of the sum of the losses of all ranks, as if every rank
    had sent back the gradient of its keys: a pair's gradient needs nothing of other ranks but
    their rows, so that this rank also compares its texts with all images and backward sends
    nothing. The upstream gradient has to be that of every other rank. Ranks that average the
    gradients of their parameters get those of the mean of their losses. Sums are float32, or
    float64 where an input is, autocast does not reach them; fused, bfloat16 rows multiply in
    bfloat16.

    Returns a scalar. Raises ValueError for shapes or dtypes that do not fit, a temperature that is
    not positive, an unknown backend, and with `auto` where only the dense form is left and its
    matrix is above 256 MiB.
    """
    own = image_ND, text_MD
    every = own if gathered is None else gathered
    ids = _diagonal(own, every) if ids is None else ids
    _check(own, every, part)
    for k in (0, 1):
        require_labels(len(every[k]), ids=ids[k], groups=groups and groups[k])
    with torch.autocast(image_ND.device.type, enabled=False):
        dtype = reduce(torch.promote_types, (x.dtype for x in (*own, *every)))
        images, texts = _sides(own, dtype, _mine(ids, own, part), _mine(groups, own, part))
        scale, _ = scale_of(temperature, images.x_ND)
        shift = torch.as_tensor(bias, dtype=scale.dtype, device=scale.device)
        fused = choose("sigmoid_pairs", backend, scale.device, len(image_ND), len(every[1]))
        pair_sum = operator.pair_sum if fused else reference.pair_sum
        if len(every[0]) == len(image_ND):  # no other rank
            return pair_sum(images, texts, scale, shift) / len(image_ND)
        every = every[0].detach(), every[1].detach()
        all_images, all_texts = _sides(every, dtype, ids, groups)
        total = pair_sum(images, all_texts, scale, shift)
        of_texts = pair_sum(texts, all_images, scale.detach(), shift.detach())
        # the value is this rank's images', the gradient also that of its texts as others' keys
        return (total + (of_texts - of_texts.detach())) / len(image_ND)


def _diagonal(own: Features, every: Features) -> Labels:
    for images, texts in (own, every):
        if len(images) != len(texts):
            raise ValueError(f"ids: missing, for {len(images)} images and {len(texts)} texts")
    numbers = torch.arange(len(every[0]), device=every[0].device)
    return numbers, numbers


def _mine(labels: Labels | None, own: Features, part: int) -> Labels | None:
    if labels is None:
        return None
    image_N, text_M = (
        every[part * len(x) : (part + 1) * len(x)] for every, x in zip(labels, own, strict=True)
    )
    return image_N, text_M


def _sides(
    rows: Features, dtype: torch.dtype, ids: Labels | None, groups: Labels | None
) -> Iterator[Side]:
    """Images, then texts."""
    for k, x_ND in enumerate(rows):
        yield Side(x_ND.to(dtype), ids and ids[k], groups and groups[k])


def _check(own: Features, every: Features, part: int) -> None:
    shapes = [tuple(x.shape) for x in (*own, *every)]
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        raise ValueError(f"images and texts, own and gathered, do not match: {shapes}")
    parts = len(every[0]) // max(len(own[0]), 1)
    if [len(x) for x in every] != [parts * len(x) for x in own]:
        raise ValueError(f"gathered images and texts are not equal parts of ranks: {shapes}")
    if not 0 <= part < parts:
        raise ValueError(f"part: {part} is not among the {parts} that were gathered")
