"""Image-report contrast: an image finds its report among others, and a report its image.

Shape letters: V views, B units, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from lightning_rad.kernels.unit_rows import unit_rows
from lightning_rad.modalities.reading import Reading, ReadingSettings
from lightning_rad.modalities.words import Words
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.text import TextEncoder
from lightning_rad.objectives.base import (
    Embeddings,
    OptimizerFactory,
    ScheduleFactory,
    embed_views,
)
from lightning_rad.objectives.pair_contrast import PairContrast
from lightning_rad.objectives.report_objective import ReportObjective, known_of, report_of
from lightning_rad.objectives.requirements import require_wide_numbers
from lightning_rad.schema import StudyBatch, ViewBatch


@dataclass(frozen=True)
class TextSide:
    """What stands on the side of the reports.

    Args:
        encoder: What reads a report; gets the tokeniser of `reports`.
        projector: Head behind it, as wide at its end as that of the images.
        rate: Learning rate of both; by default the optimiser's.
    """

    encoder: Callable[[Words], TextEncoder]
    projector: Callable[[int], Projector]
    rate: float | None = None


@final
class ImageReport(ReportObjective):
    """Contrast of images and reports in the forms of CLIP, ConVIRT and SigLIP.

    CLIP (arXiv:2103.00020, figure 3) and ConVIRT (arXiv:2010.00747, equations 2 to 4) are the same
    mean of two cross entropies over the pairs of all ranks; CLIP weighs them alike and learns the
    temperature, ConVIRT weighs images among reports by 0.75 at a fixed 0.1 (and reads one sentence
    of a report: `reports.sentence`). SigLIP (arXiv:2303.15343, algorithm 1) asks of each pair by
    itself whether it belongs together, with a learned temperature and bias.

    Differences from all three: reports of one and the same text are no negatives of each other's
    images (`contrast.faithful`: they are). With several views of a unit each is a row, all rows of
    a unit are each other's positives. Units may be studies or images; two images of a study share
    its text.

    A learned temperature is held at `contrast.least`, 1/100, by setting the parameter back after
    each step, as open_clip's training does: CLIP (section 2.5) names the bound and no place for it,
    and a parameter that is bounded where it is read has no gradient beyond, or one that leads it
    ever further. SigLIP has no such bound; here it has, for the kernels need one. open_clip's other
    bound, a temperature of at most 1, is not in the paper and not here. With parameters of 16 bits
    (`bf16-true`) it would not move at all, and is refused.

    Accumulating gradients over k micro-batches averages k losses with 1/k of the negatives each: it
    is not the loss of the large batch.

    Args:
        encoder: The network that is pretrained.
        reports: How reports are read, and the tokeniser of a text encoder that has none of its own.
        projector: Head behind the encoder; its input width is the encoder's.
        text: What reads the reports, and its head.
        contrast: How images and reports are compared.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        seed: Seed of what is random inside the modules.
    """

    least_views: ClassVar[int] = 1
    text_side: ClassVar[tuple[str, ...]] = ("text", "text_projector")

    def __init__(
        self,
        encoder: Encoder,
        *,
        reports: ReadingSettings,
        projector: Callable[[int], Projector],
        text: TextSide,
        contrast: PairContrast = PairContrast(),  # noqa: B008 - frozen
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if text.rate is not None and not text.rate >= 0:
            raise ValueError(f"text.rate must be at least 0, got {text.rate}")
        self.contrast, self.text_rate = contrast, text.rate
        self.projector = projector(encoder.out_features)
        words = Words.read(reports.tokenizer, limit=reports.limit, keep_end=True)
        self.text = text.encoder(words)
        self.text_projector = text.projector(self.text.out_features)
        self._require_one_width()
        self.reading = Reading({"text": self.text.words}, reports)
        if contrast.learned:
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / contrast.temperature)))
            if contrast.form == "sigmoid":
                self.bias = nn.Parameter(torch.tensor(float(contrast.bias)))

    def _require_one_width(self) -> None:
        image, text = self.projector.out_features, self.text_projector.out_features
        if image != text:
            raise ValueError(
                f"text.projector.out_features is {text}, projector.out_features {image}: images "
                "and reports are compared at one width"
            )

    def require(self, data: Any) -> None:
        """As every objective that reads; and a precision in which the temperature can learn."""
        super().require(data)
        require_wide_numbers(self, self.trainer.precision)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Projections of all views [V, B, D] and of the reports [1, B, D]."""
        text_BD = self.text_projector(self.text(report_of(batch).tokens["text"]))
        return {
            "image": embed_views(batch.views, self.encoder, self.projector),
            "text": text_BD[None],
        }

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """The contrast of this rank's pairs with those of all ranks."""
        views, learned = len(embeddings["image"]), self.contrast.learned
        loss = self.contrast.loss(
            embeddings["image"].flatten(0, 1),
            embeddings["text"][0].repeat(views, 1),
            ids_N=batch.unit.repeat(views),
            texts_N=report_of(batch).hash.repeat(views),
            log_scale=self.log_scale if learned else None,
            bias=self.bias if learned and self.contrast.form == "sigmoid" else None,
        )
        return {"contrast": loss}

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        """As every objective; logs the temperature that is learned, as it was in this step."""
        loss = super().training_step(batch, batch_idx)
        if self.contrast.learned:
            temperature = (-self.log_scale.detach()).exp().clamp_min(self.contrast.least)
            self.log("train/temperature", temperature, batch_size=1)
        return loss

    def after_step(self, taken: bool) -> None:
        """A learned temperature goes back to its bound."""
        if taken and self.contrast.learned:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(1 / self.contrast.least))

    def read_studies(self, batch: StudyBatch, *, write: bool) -> dict[str, Tensor]:
        """See `ReportObjective.read_studies`; of several views the mean of their directions."""
        embeddings = self.embed(batch.views)
        return {
            "image": torch.stack([unit_rows(x) for x in embeddings["image"].float()]).mean(0),
            "text": embeddings["text"][0].float(),
            **known_of(batch),
        }
