"""REFERS: three views of a study write its report, and find it among others.

Shape letters: V views, B studies, P patches, M = V P places of a memory, D features, E = V D
features of a study, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from lightning_rad.collectives import Exchange, gather_detached, world_size
from lightning_rad.kernels.choice import Backend
from lightning_rad.losses.captioning import captioning, counted
from lightning_rad.modalities.reading import Reading, ReadingSettings
from lightning_rad.modalities.words import Words
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.report_decoder import ReportDecoder
from lightning_rad.nn.text import TextEncoder
from lightning_rad.nn.view_fusion import ViewFusion
from lightning_rad.objectives.base import Embeddings, OptimizerFactory, ScheduleFactory
from lightning_rad.objectives.pair_contrast import clip_over_ranks, require_share
from lightning_rad.objectives.report_objective import ReportObjective, known_of, report_of
from lightning_rad.objectives.requirements import require_temperature
from lightning_rad.schema import StudyBatch, ViewBatch

VIEWS = 3


@dataclass(frozen=True)
class StudyContrast:
    """How studies and reports are compared.

    Args:
        temperature: Divides the cosine similarities; at least 0.01.
        image_share: Weight of the loss of studies among reports, 0 to 1; that of reports among
            studies has the rest.
        faithful_code: Count the loss of reports among studies without its gradient, as
            funnyzhou/REFERS does, which takes it through `.item()`; the paper has both.
        faithful: Keep studies of one and the same text as each other's negatives.
        backend: How it is computed; `reference` is the dense definition.
        exchange: How ranks see each other's rows, `gather` or `ring` (see SimCLR).
    """

    temperature: float = 0.1
    image_share: float = 0.75
    faithful_code: bool = False
    faithful: bool = False
    backend: Backend = "auto"
    exchange: Exchange = "gather"

    def __post_init__(self) -> None:
        require_temperature(self.temperature)
        require_share(self.image_share)


@final
class REFERS(ReportObjective):
    """Reviewing Free-text Reports for Supervision (arXiv:2111.03452, Nature Mach. Intell. 2022).

    Follows `models/captioning.py` of funnyzhou/REFERS at df7e83e. One encoder sees three images of
    a study, drawn with replacement (`data.shuffle.images: independent`). Each image's feature is
    added to its patches, gates of the fusion weigh these, and a causal decoder writes the report
    from the patches of all three: the term `caption`, nats a token over the tokens of all ranks.
    The three features side by side, which no gate touches, are the study's vector, and a text
    encoder and one linear layer make a vector of the report: the term `contrast`, by their cosines,
    3/4 that of studies among the reports of all ranks and 1/4 the other way. Both terms have
    weight 1.

    Differences from the code: the gradient of both directions (`contrast.faithful_code` for
    theirs); studies of one text are no negatives of each other (`contrast.faithful`: they are);
    a study is mirrored as a whole, while there each view is by itself and the words of side follow
    the first; these change places as whole words, while there "bright" becomes "bleft"; unknown
    words are learned and padding is not, while there both are number 0. With batch norms in the
    encoder its statistics are those of all three views together. Accumulating gradients over k
    micro-batches averages k caption losses, each by its own tokens, and k contrasts with 1/k of the
    negatives each.

    Args:
        encoder: The network that is pretrained; one of timm that gives patches.
        reports: How reports are read, and the tokeniser of the decoder and of a text encoder that
            has none of its own.
        decoder: What writes the report; gets the encoder's width and the tokeniser.
        text: What reads the report; gets the tokeniser.
        optimizer: Optimiser class and its arguments but for the parameters.
        contrast: How studies and reports are compared.
        schedule: Learning-rate schedule class and its arguments.
        text_rate: Learning rate of the text encoder and the linear layer behind it (both are of
            `contrastive_bert` in the code); by default the optimiser's.
        seed: Seed of what is random inside the modules.
    """

    units: ClassVar[tuple[str, ...]] = ("study",)
    text_side: ClassVar[tuple[str, ...]] = ("text", "text_projection")
    least_views: ClassVar[int] = VIEWS
    most_views: ClassVar[int | None] = VIEWS

    def __init__(
        self,
        encoder: Encoder,
        *,
        reports: ReadingSettings,
        decoder: Callable[[int, Words], ReportDecoder],
        text: Callable[[Words], TextEncoder],
        optimizer: OptimizerFactory,
        contrast: StudyContrast = StudyContrast(),
        schedule: ScheduleFactory | None = None,
        text_rate: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if text_rate is not None and not text_rate >= 0:
            raise ValueError(f"text_rate must be at least 0, got {text_rate}")
        self.contrast, self.text_rate = contrast, text_rate
        width, read = encoder.out_features, partial(Words.read, reports.tokenizer)
        # a report that is cut has no end for the decoder, as in the code; for text encoders it has
        words = read(limit=reports.limit, keep_end=False)
        self.fusion = ViewFusion(width, views=VIEWS)
        self.decoder = decoder(width, words)
        self.text = text(read(limit=reports.limit, keep_end=True))
        self.text_projection = nn.Linear(self.text.out_features, VIEWS * width)
        self.reading = Reading({"caption": words, "text": self.text.words}, reports)
        self.caption_words = words

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Vectors of studies and reports [1, B, E], and nats of each whole report [1, B, 1]."""
        tokens = report_of(batch).tokens
        image_BE, memory_BMD = self._look(batch.views)
        nll_B = captioning(self.decoder(memory_BMD, tokens["caption"]), tokens["caption"])
        text_BE = self.text_projection(self.text(tokens["text"]))
        return {"image": image_BE[None], "text": text_BE[None], "nll": nll_B[None, :, None]}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """Nats a token over all ranks, as the mean of what they return; and the contrast."""
        counted_B = counted(report_of(batch).tokens["caption"])
        of_all = gather_detached(counted_B.sum()[None]).sum()
        caption = embeddings["nll"].sum() * world_size() / of_all
        contrast = self._compare(embeddings["image"][0], embeddings["text"][0], batch)
        return {"caption": caption, "contrast": contrast}

    def read_studies(self, batch: StudyBatch, *, write: bool) -> dict[str, Tensor]:
        """See `ReportObjective.read_studies`; features are of width E, T is the limit."""
        tokens = report_of(batch.views).tokens
        captions = tokens["caption"]
        image_BE, memory_BMD = self._look(batch.views.views)
        text_BE = self.text_projection(self.text(tokens["text"]))
        read = {
            "image": image_BE.float(),
            "text": text_BE.float(),
            "nll": captioning(self.decoder(memory_BMD, captions), captions).float(),
            "tokens": counted(captions),
            **known_of(batch),
        }
        if write:
            read["generated"] = self.decoder.generate(memory_BMD, self.decoder.limit)
        return read

    def _look(self, views_VB1HW: Tensor) -> tuple[Tensor, Tensor]:
        """The studies' vectors [B, E] and memories [B, M, D]."""
        features, tokens = self.encoder(views_VB1HW.flatten(0, 1), tokens=True)
        features_VBD = features.unflatten(0, views_VB1HW.shape[:2])
        tokens_VBPD = tokens.unflatten(0, views_VB1HW.shape[:2]) + features_VBD.unsqueeze(2)
        return torch.cat(list(features_VBD), dim=1), self.fusion(tokens_VBPD)

    def _compare(self, image_BE: Tensor, text_BE: Tensor, batch: ViewBatch) -> Tensor:
        how = self.contrast
        compare = clip_over_ranks(
            image_BE,
            text_BE,
            ids_M=gather_detached(batch.unit),
            groups_M=None if how.faithful else gather_detached(report_of(batch).hash),
            temperature=how.temperature,
            exchange=how.exchange,
            backend=how.backend,
        )
        if not how.faithful_code:
            return compare(image_share=how.image_share)
        with torch.no_grad():
            of_reports = compare(image_share=0.0)
        return how.image_share * compare(image_share=1.0) + (1 - how.image_share) * of_reports
