"""The sigmoid loss of image-text pairs of SigLIP.

Shape letters: N images and M texts of this rank, D features.
"""

from __future__ import annotations

from torch import Tensor

from lightning_rad.kernels import sigmoid_pairs as kernel
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.sigmoid_pairs import Features, Labels
from lightning_rad.kernels.temperature import Learned


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
    """-sum_ij log sigmoid(y_ij (s_ij / t + b)) / N; y is 1 for pairs that belong together, else -1.

    Algorithm 1 of SigLIP (arXiv:2303.15343), which starts at 1/t = 10 and b = -10 and learns
    log(1/t) and b: `Learned((-log_scale).exp(), least)` here. s is the cosine of image i of this
    rank and text j of all. Averaged over ranks with equal numbers of images it is the loss of the
    global batch, and the gradient after the mean over ranks is its gradient.

    image_ND, text_MD: embeddings of this rank, not normalised. gathered: images and texts of all
    ranks in rank order, without gradient; `part` is this rank. Nothing is sent in backward.
    ids: int64, of images and of texts, equal where they belong together; by default image i and
    text i do. groups: int64, of images and of texts, such as the hash of a report; a pair of one
    group that does not belong together is left out. Group 0 is unknown. With `gathered` ids and
    groups are those of all ranks, too. Errors and precision: see the kernel.
    """
    return kernel.sigmoid_pairs(
        image_ND,
        text_MD,
        temperature=temperature,
        bias=bias,
        gathered=gathered,
        part=part,
        ids=ids,
        groups=groups,
        backend=backend,
    )
