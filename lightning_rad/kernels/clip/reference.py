"""The definition: dense, M x M, in plain torch; every other form is tested against it.

Shape letters: M pairs, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_pair_loss(
    image_MD: Tensor, text_MD: Tensor, ids_M: Tensor, groups_M: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of images and of texts, [M] each, of unit rows; see the package's function."""
    logits_MM = image_MD @ text_MD.T * scale
    same_id_MM = ids_M[:, None] == ids_M
    positives_M = same_id_MM.sum(1)
    attraction_MM = logits_MM * same_id_MM
    if groups_M is not None:
        left_out_MM = (groups_M[:, None] == groups_M) & (groups_M != 0) & ~same_id_MM
        logits_MM = logits_MM.masked_fill(left_out_MM, -torch.inf)
    of_images_M = logits_MM.logsumexp(1) - attraction_MM.sum(1) / positives_M
    of_texts_M = logits_MM.logsumexp(0) - attraction_MM.sum(0) / positives_M
    return of_images_M, of_texts_M
