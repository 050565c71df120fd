"""The contrast of pairs of images and reports, in two forms.

Shape letters: N pairs of this rank, M pairs of all ranks, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from torch import Tensor

from lightning_rad.collectives import Exchange, exchange_rows, gather_detached, rank
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.clip import clip
from lightning_rad.losses.sigmoid_pairs import sigmoid_pairs
from lightning_rad.objectives.requirements import require_temperature

Form = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class PairContrast:
    """How images and reports are compared.

    Args:
        form: softmax: cross entropy along both axes (CLIP, ConVIRT); sigmoid: each pair by itself
            (SigLIP).
        temperature: Divides the cosine similarities, at least 0.01; the first one, if learned.
        learned: Learn the logarithm of 1 / temperature and, with the sigmoid, the bias.
        least: Below which a learned temperature does not fall, at least 0.01.
        image_share: Weight of the loss of images among reports, 0 to 1; that of reports among
            images has the rest. Softmax only.
        bias: What is added to each logit of the sigmoid; the first one, if learned.
        faithful: Keep pairs of one and the same text as each other's negatives, as the papers do.
        backend: How it is computed; `reference` is the dense definition.
        exchange: How ranks see each other's rows, `gather` or, softmax only, `ring` (see SimCLR).
    """

    form: Form = "softmax"
    temperature: float = 0.07
    learned: bool = True
    least: float = 0.01
    image_share: float = 0.5
    bias: float = -10.0
    faithful: bool = False
    backend: Backend = "auto"
    exchange: Exchange = "gather"

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"contrast.form: '{self.form}' is not one of {list(get_args(Form))}")
        require_temperature(self.temperature)
        if not 0.01 <= self.least <= self.temperature:
            raise ValueError(
                "contrast.least must lie between 0.01 and contrast.temperature "
                f"{self.temperature}, got {self.least}"
            )
        require_share(self.image_share)
        if self.form == "sigmoid" and self.image_share != 0.5:
            raise ValueError(
                f"contrast.image_share is {self.image_share}: the sigmoid form has no directions "
                "to weigh, leave it at 0.5"
            )
        if self.form == "sigmoid" and self.exchange == "ring":
            raise ValueError(
                "contrast.exchange is ring: the sigmoid form takes the rows of all ranks at once, "
                "set it to gather"
            )
        if self.form == "softmax" and self.bias != -10.0:
            raise ValueError(
                f"contrast.bias is {self.bias}: the softmax form has none, leave it at -10"
            )

    def loss(
        self,
        image_ND: Tensor,
        text_ND: Tensor,
        *,
        ids_N: Tensor,
        texts_N: Tensor,
        log_scale: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """The loss of this rank's pairs, row i of one side belonging to row i of the other.

        image_ND, text_ND: not normalised. ids_N: int64, equal for pairs of one unit, which are
        positives of each other. texts_N: int64, equal for equal texts, never 0. log_scale, bias:
        0-d; what is learned in the place of the settings. Every rank has to take part.
        """
        temperature: float | Learned = self.temperature
        if log_scale is not None:
            temperature = Learned((-log_scale).exp(), self.least)
        ids_M = gather_detached(ids_N)
        groups_M = None if self.faithful else gather_detached(texts_N)
        if self.form == "sigmoid":
            return sigmoid_pairs(
                image_ND,
                text_ND,
                gathered=(gather_detached(image_ND), gather_detached(text_ND)),
                part=rank(),
                ids=(ids_M, ids_M),
                groups=None if groups_M is None else (groups_M, groups_M),
                temperature=temperature,
                bias=self.bias if bias is None else bias,
                backend=self.backend,
            )
        compare = clip_over_ranks(
            image_ND,
            text_ND,
            ids_M=ids_M,
            groups_M=groups_M,
            temperature=temperature,
            exchange=self.exchange,
            backend=self.backend,
        )
        return compare(image_share=self.image_share)


def clip_over_ranks(
    image_ND: Tensor,
    text_ND: Tensor,
    *,
    ids_M: Tensor,
    groups_M: Tensor | None,
    temperature: float | Learned,
    exchange: Exchange,
    backend: Backend,
) -> partial[Tensor]:
    """CLIP's loss of this rank's pairs among those of all ranks, but for `image_share`.

    Rows are exchanged once, here, however often the loss is taken. Every rank has to take part.
    """
    return partial(
        clip,
        image_ND,
        text_ND,
        exchange_rows(image_ND, exchange),
        exchange_rows(text_ND, exchange),
        ids_M=ids_M,
        groups_M=groups_M,
        temperature=temperature,
        offset=rank() * len(image_ND),
        gather=gather_detached,
        backend=backend,
    )


def require_share(image_share: float) -> None:
    """Raise ValueError for a weight of images among reports that is none."""
    if not 0 <= image_share <= 1:
        raise ValueError(f"contrast.image_share must lie in [0, 1], got {image_share}")
