"""The definition: dense, M x M, in plain torch; every other form is tested against it.

Shape letters: M pairs, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_OUT = -1e30
"""Logit of an inadmissible pair: its share of any sum is 0, and yet 0 times it is 0."""


def per_pair_loss(
    image_MD: Tensor, text_MD: Tensor, ids_M: Tensor, groups_M: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The losses of images and of texts, [M] each, of unit rows; see the package's function."""
    logits_MM = image_MD @ text_MD.T * scale
    same_id_MM = ids_M[:, None] == ids_M
    with torch.no_grad():  # what is left out has no gradient, for its share of any sum is 0
        if groups_M is not None:
            left_out_MM = (groups_M[:, None] == groups_M) & (groups_M != 0) & ~same_id_MM
            logits_MM.detach().masked_fill_(left_out_MM, LEFT_OUT)
        positive_MM = same_id_MM.to(logits_MM.dtype)
        mean_M = -1 / positive_MM.sum(1)
    of_images_M = torch.linalg.vecdot(logits_MM.log_softmax(1), positive_MM)
    of_texts_M = torch.linalg.vecdot(logits_MM.log_softmax(0), positive_MM, dim=0)
    return of_images_M * mean_M, of_texts_M * mean_M
