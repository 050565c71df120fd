"""Cross entropy of images among texts and of texts among images.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.clip.operator import CLIP, Gather
from lightning_rad.kernels.clip.reference import per_pair_loss
from lightning_rad.kernels.labels import require_labels
from lightning_rad.kernels.temperature import Learned, scale_of, shared
from lightning_rad.kernels.unit_rows import unit_rows


def alone(x_N: Tensor) -> Tensor:
    """The gather of a process that has no others."""
    return x_N


def clip(
    image_ND: Tensor,
    text_ND: Tensor,
    images_MD: Tensor,
    texts_MD: Tensor,
    *,
    ids_M: Tensor,
    temperature: float | Learned,
    groups_M: Tensor | None = None,
    image_share: float = 0.5,
    offset: int = 0,
    gather: Gather = alone,
    reduction: Literal["mean", "none"] = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """image_share times the mean loss of images plus the rest times that of texts.

    With unit vectors, s_ij = image_i . text_j / temperature and P_i the pairs of equal id:
    image i loses logsumexp_j s_ij - mean_{p in P_i} s_ip, text j likewise over images.

    image_ND, text_ND: this rank's pairs, floating, not of unit length: x / max(|x|, 1e-6) is part
    of the operation. images_MD, texts_MD: the pairs of all ranks, this rank's at `offset`; values
    only, their gradient is not asked for. ids_M: int64, of all pairs. groups_M: [M] int64; a pair
    of pair i's group but not of its id is neither positive nor negative to it; group 0 means
    unknown and excludes nothing. gather: turns a tensor of N rows into that of M, without gradient;
    backward calls it once, on [N, 6], where M > N. Every rank has to take part, in backward, too.

    Gradient reaches image_ND, text_ND and a learned temperature: that of the sum of the losses of
    all ranks, as if every rank had kept the gradient of its keys and these had been summed. Sums
    are float32, or float64 where an input is, autocast does not reach them; fused, bfloat16 rows
    multiply in bfloat16.

    Returns a scalar, or [2, N], losses of images and of texts, for reduction "none". Raises
    ValueError for shapes or dtypes that do not fit, a temperature that is not positive, an unknown
    backend, and with `auto` where only the dense form is left and its matrix is above 256 MiB.
    """
    _check(image_ND, text_ND, images_MD, texts_MD, offset)
    require_labels(len(images_MD), ids=ids_M, groups=groups_M)
    rows = image_ND, text_ND, images_MD.detach(), texts_MD.detach()
    dtype = image_ND.dtype
    for x in rows[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    image_ND, text_ND, images_MD, texts_MD = (x.to(dtype) for x in rows)
    with torch.autocast(image_ND.device.type, enabled=False):
        scale, in_range = scale_of(temperature, image_ND)
        if choose("clip", backend, image_ND.device, len(image_ND), len(images_MD)):
            of_images_N, of_texts_N = CLIP.apply(
                image_ND,
                text_ND,
                scale,
                images_MD,
                texts_MD,
                ids_M,
                groups_M,
                offset,
                in_range,
                gather,
            )
            return _joined(of_images_N, of_texts_N, image_share, reduction)
        own = slice(offset, offset + len(image_ND))
        image_MD, text_MD = (
            unit_rows(torch.cat([keys_MD[: own.start], rows_ND, keys_MD[own.stop :]]))
            for rows_ND, keys_MD in ((image_ND, images_MD), (text_ND, texts_MD))
        )
        if reduction == "mean":
            scale = shared(scale, len(image_ND) / len(images_MD))
        of_images_M, of_texts_M = per_pair_loss(image_MD, text_MD, ids_M, groups_M, scale)
        here = _joined(of_images_M[own], of_texts_M[own], image_share, reduction)
        if reduction == "none":
            return here
        # the value is this rank's, the gradient that of all pairs that have these as keys
        whole = _joined(of_images_M, of_texts_M, image_share, "mean")
        whole = whole * (len(images_MD) / len(image_ND))
        return here.detach() + whole - whole.detach()


def _joined(of_images_N: Tensor, of_texts_N: Tensor, image_share: float, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.stack([of_images_N, of_texts_N])
    return image_share * of_images_N.mean() + (1 - image_share) * of_texts_N.mean()


def _check(
    image_ND: Tensor, text_ND: Tensor, images_MD: Tensor, texts_MD: Tensor, offset: int
) -> None:
    if image_ND.ndim != 2 or text_ND.shape != image_ND.shape:
        raise ValueError(
            f"images {tuple(image_ND.shape)} and texts {tuple(text_ND.shape)} do not match"
        )
    for name, keys_MD in (("images", images_MD), ("texts", texts_MD)):
        if keys_MD.ndim != 2 or keys_MD.shape[1] != image_ND.shape[1]:
            raise ValueError(f"{name} {tuple(keys_MD.shape)} for rows {tuple(image_ND.shape)}")
    if not 0 <= offset <= len(images_MD) - len(image_ND) or len(texts_MD) != len(images_MD):
        raise ValueError(
            f"offset: pairs {offset} to {offset + len(image_ND)} are not among "
            f"{len(images_MD)} images and {len(texts_MD)} texts"
        )
