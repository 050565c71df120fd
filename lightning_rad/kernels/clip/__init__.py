"""Cross entropy of images among texts and of texts among images.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend, choose
from lightning_rad.kernels.clip.operator import CLIP
from lightning_rad.kernels.clip.reference import per_pair_loss
from lightning_rad.kernels.labels import require_labels
from lightning_rad.kernels.pairs.pieces import Gather, Keys, alone, require_fused
from lightning_rad.kernels.temperature import Learned, scale_of, shared
from lightning_rad.kernels.unit_rows import unit_rows


def clip(
    image_ND: Tensor,
    text_ND: Tensor,
    images_MD: Keys,
    texts_MD: Keys,
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
    only, their gradient is not asked for; both at once or, where so many cannot be held, both in
    pieces (`Pieces`). ids_M: int64, of all pairs. groups_M: [M] int64; a pair of pair i's group but
    not of its id is neither positive nor negative to it; group 0 means unknown and excludes
    nothing. gather: turns a tensor of N rows into that of M, without gradient; backward calls it
    once, on [N, 6], where M > N. Every rank has to take part, in backward, too.

    Gradient reaches image_ND, text_ND and a learned temperature: that of the sum of the losses of
    all ranks, as if every rank had kept the gradient of its keys and these had been summed. Sums
    are float32, or float64 where an input is, autocast does not reach them; fused, bfloat16 rows
    multiply in bfloat16.

    Returns a scalar, or [2, N], losses of images and of texts, for reduction "none". Raises
    ValueError for shapes or dtypes that do not fit, a temperature that is not positive, an unknown
    backend, the dense form of pieces, and with `auto` where only the dense form is left and its
    matrix is above 256 MiB.
    """
    count = len(images_MD) if isinstance(images_MD, Tensor) else len(ids_M)
    _check(image_ND, text_ND, images_MD, texts_MD, count, offset)
    require_labels(count, ids=ids_M, groups=groups_M)
    dtype = torch.promote_types(image_ND.dtype, text_ND.dtype)
    if isinstance(images_MD, Tensor) and isinstance(texts_MD, Tensor):
        dtype = torch.promote_types(dtype, torch.promote_types(images_MD.dtype, texts_MD.dtype))
        images_MD, texts_MD = images_MD.detach().to(dtype), texts_MD.detach().to(dtype)
    image_ND, text_ND = image_ND.to(dtype), text_ND.to(dtype)
    with torch.autocast(image_ND.device.type, enabled=False):
        scale, in_range = scale_of(temperature, image_ND)
        if not (isinstance(images_MD, Tensor) and isinstance(texts_MD, Tensor)):
            require_fused(backend)
        elif not choose("clip", backend, image_ND.device, len(image_ND), count):
            sides = (image_ND, images_MD), (text_ND, texts_MD)
            return _dense(*sides, ids_M, groups_M, scale, offset, image_share, reduction)
        rows = image_ND, text_ND, scale, images_MD, texts_MD, ids_M, groups_M
        of_images_N, of_texts_N = CLIP.apply(*rows, offset, in_range, gather)
        return _joined(of_images_N, of_texts_N, image_share, reduction)


def _dense(
    images: tuple[Tensor, Tensor],
    texts: tuple[Tensor, Tensor],
    ids_M: Tensor,
    groups_M: Tensor | None,
    scale: Tensor,
    offset: int,
    image_share: float,
    reduction: str,
) -> Tensor:
    if reduction == "mean" and len(images[0]) == len(images[1]):
        units = unit_rows(images[0]), unit_rows(texts[0])
        return _joined(*per_pair_loss(*units, ids_M, groups_M, scale), image_share, reduction)
    own = slice(offset, offset + len(images[0]))
    image_MD, text_MD = (
        unit_rows(torch.cat([keys_MD[: own.start], rows_ND, keys_MD[own.stop :]]))
        for rows_ND, keys_MD in (images, texts)
    )
    if reduction == "mean":
        scale = shared(scale, len(images[0]) / len(images[1]))
    of_images_M, of_texts_M = per_pair_loss(image_MD, text_MD, ids_M, groups_M, scale)
    here = _joined(of_images_M[own], of_texts_M[own], image_share, reduction)
    if reduction == "none":
        return here
    # the value is this rank's, the gradient that of all pairs that have these as keys
    whole = _joined(of_images_M, of_texts_M, image_share, "mean")
    whole = whole * (len(images[1]) / len(images[0]))
    return here.detach() + whole - whole.detach()


def _joined(of_images_N: Tensor, of_texts_N: Tensor, image_share: float, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.stack([of_images_N, of_texts_N])
    return image_share * of_images_N.mean() + (1 - image_share) * of_texts_N.mean()


def _check(
    image_ND: Tensor, text_ND: Tensor, images_MD: Keys, texts_MD: Keys, count: int, offset: int
) -> None:
    if image_ND.ndim != 2 or text_ND.shape != image_ND.shape:
        raise ValueError(
            f"images {tuple(image_ND.shape)} and texts {tuple(text_ND.shape)} do not match"
        )
    counts = []
    for name, keys_MD in (("images", images_MD), ("texts", texts_MD)):
        shape = keys_MD.shape if isinstance(keys_MD, Tensor) else (count, image_ND.shape[1])
        if len(shape) != 2 or shape[1] != image_ND.shape[1]:
            raise ValueError(f"{name} {tuple(shape)} for rows {tuple(image_ND.shape)}")
        counts.append(shape[0])
    if not 0 <= offset <= count - len(image_ND) or counts != [count, count]:
        raise ValueError(
            f"offset: pairs {offset} to {offset + len(image_ND)} are not among "
            f"{counts[0]} images and {counts[1]} texts"
        )
