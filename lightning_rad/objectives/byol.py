"""BYOL: each view predicts the other as a slow twin sees it; there are no negatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from torch import Tensor

from lightning_rad.losses.cosine_regression import cosine_regression
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
from lightning_rad.objectives.requirements import require_same_width
from lightning_rad.schema import ViewBatch


@final
class BYOL(Objective):
    """Bootstrap Your Own Latent (arXiv:2006.07733).

    The sum over both directions of the normalised squared error between the prediction of one
    view and the twin's projection of the other. Views pass one by one, each with batch statistics
    of its own, which the method depends on: keep batch norm in projector and predictor. The
    twin's momentum rises to 1 along half a cosine and it follows the parameters that the step has
    just made (`_update_fn` of byol_experiment.py in google-deepmind/deepmind-research); it starts
    as a copy, where that code starts it elsewhere and reports no difference.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder, which the twin has, too.
        predictor: Head behind the projector, of the same width, which the twin has not.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        momentum: The part of itself the twin keeps at the first step.
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
        momentum: float = 0.996,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
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
            "prediction": embed_each_view(batch.views, *student),
            "target": embed_each_view(batch.views, self.twin),
        }

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """The error of both directions."""
        prediction_2BD, target_2BD = embeddings["prediction"], embeddings["target"]
        there = cosine_regression(prediction_2BD[0], target_2BD[1])
        back = cosine_regression(prediction_2BD[1], target_2BD[0])
        return {"cosine_regression": there + back}

    def after_step(self, taken: bool) -> None:
        """The twin follows."""
        if taken:
            progress = self.global_step / self.total_steps
            self.twin.follow(self.encoder, self.projector, progress=progress)
