"""MoCo v3: each view predicts the other as a slow twin sees it, among the batch's own keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from torch import Tensor

from lightning_rad.collectives import gather_detached, rank
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.unit_rows import unit_rows
from lightning_rad.losses.info_nce import info_nce
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
    embed_each_view,
)
from lightning_rad.objectives.requirements import require_same_width, require_temperature
from lightning_rad.schema import ViewBatch


@final
class MoCoV3(Objective):
    """An Empirical Study of Training Self-Supervised Vision Transformers (arXiv:2104.02057).

    InfoNCE of the predictions of each view against the twin's projections of the other view of
    all ranks, in both directions, times 2 t; no queue. Views pass one by one, each with batch
    statistics of its own. The twin's momentum rises to 1 along half a cosine (`--moco-m-cos` of
    facebookresearch/moco-v3, in all its published commands); before step k that code moves its
    twin with the momentum of k / total, here the same move comes after step k - 1.

    Accumulating gradients over k micro-batches averages k losses over 1/k of the keys each.

    For a ViT freeze the patch embedding and fix the positions, as section 4.2 and `vits.py` do:
    `encoder.init_args: {frozen: [patch_embed], position: sincos}`.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder, which the twin has, too.
        predictor: Head behind the projector, of the same width, which the twin has not.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        momentum: The part of itself the twin keeps at the first step.
        temperature: Divides the cosine similarities; at least 0.01.
        backend: How InfoNCE is computed; `reference` is the dense definition.
        seed: Seed of what is random inside the modules.
    """

    most_views: ClassVar[int | None] = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Callable[[int], Projector],
        predictor: Callable[[int], Projector],
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        momentum: float = 0.99,
        temperature: float = 1.0,
        backend: Backend = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        self.temperature = require_temperature(temperature)
        self.backend = backend
        self.projector = projector(encoder.out_features)
        self.predictor = require_same_width(predictor(self.projector.out_features), self.projector)
        self.twin = MomentumTwin(self.encoder, self.projector, momentum=momentum)

    def on_fit_start(self) -> None:
        """Refuse a run without end before its first step: the twin's momentum needs one."""
        self.total_steps  # noqa: B018 - raises

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Predictions of both views and the twin's projections of them, [2, B, D] each."""
        student = (self.encoder, self.projector, self.predictor)
        return {
            "query": embed_each_view(batch.views, *student),
            "key": embed_each_view(batch.views, self.twin),
        }

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """InfoNCE of both directions, times twice the temperature."""
        first = rank() * len(batch.unit)
        there, back = (
            info_nce(
                query_BD,
                key_BD,
                gather_detached(key_BD),
                temperature=self.temperature,
                offset=first,
                backend=self.backend,
            )
            for query_BD, key_BD in zip(
                embeddings["query"], map(unit_rows, embeddings["key"].flip(0)), strict=True
            )
        )
        return {"info_nce": 2 * self.temperature * (there + back)}

    def after_step(self, taken: bool) -> None:
        """The twin follows."""
        if taken:
            progress = (self.global_step + 1) / self.total_steps
            self.twin.follow(self.encoder, self.projector, progress=progress)
