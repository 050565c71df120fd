"""The symmetric contrast of images and reports of CLIP and ConVIRT.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from torch import Tensor

from lightning_rad.kernels import clip as kernel
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.pairs.pieces import Gather, Keys, alone
from lightning_rad.kernels.temperature import Learned


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
    backend: Backend = "auto",
) -> Tensor:
    """Mean cross entropy of images among texts and of texts among images, weighed together.

    Figure 3 of CLIP (arXiv:2103.00020) with image_share 1/2; equations 2 to 4 of ConVIRT
    (arXiv:2010.00747) with its lambda, 0.75; both loss and gradient are those of the global batch
    once ranks with equal numbers of pairs have averaged.

    image_ND, text_ND: this rank's embeddings, not normalised, row i of one belonging to row i of
    the other. images_MD, texts_MD: those of all ranks, this rank's at `offset`, without gradient;
    tensors or, where they would not fit, rings. ids_M: int64, equal for pairs that are positives of
    each other. groups_M: int64, such as hashes of report texts: pairs of one group are not each
    other's negatives; group 0 means unknown. gather: how backward learns the log-sum-exps of the
    other ranks. Gradient reaches image_ND, text_ND and a learned temperature. Errors and precision:
    see the kernel.
    """
    return kernel.clip(
        image_ND,
        text_ND,
        images_MD,
        texts_MD,
        ids_M=ids_M,
        temperature=temperature,
        groups_M=groups_M,
        image_share=image_share,
        offset=offset,
        gather=gather,
        backend=backend,
    )
