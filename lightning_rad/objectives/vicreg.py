"""VICReg: views agree, every feature varies over the batch, and no two features do so together."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor

from lightning_rad.collectives import gather_rows
from lightning_rad.losses.vicreg import covariance, invariance, variance
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
    embed_each_view,
)
from lightning_rad.schema import ViewBatch


@final
class VICReg(Objective):
    """Variance-Invariance-Covariance Regularization (arXiv:2105.04906).

    Follows `main_vicreg.py` of facebookresearch/vicreg, where the variance term is the mean of
    both views' (the paper's equation 6 has their sum) and the covariance term their sum. Views pass
    one by one; variances and covariances are those of the global batch, over rows gathered with
    gradient. Accumulating gradients over k micro-batches averages k losses over 1/k of the rows
    each. That code's networks have batch norms that are synchronised over ranks: set
    trainer.sync_batchnorm.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder, the paper's expander; wide.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        weights: Of invariance, variance and covariance, in this order; each at least 0.
        seed: Seed of what is random inside the modules.
    """

    most_views: ClassVar[int | None] = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Callable[[int], Projector],
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        weights: tuple[float, float, float] = (25.0, 25.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if not all(weight >= 0 for weight in weights):
            raise ValueError(f"weights must all be at least 0, got {list(weights)}")
        self.weights = weights
        self.projector = projector(encoder.out_features)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Projections of both views, [2, B, D]."""
        return {"rows": embed_each_view(batch.views, self.encoder, self.projector)}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """The three terms, weighted, of the global batch; alike on all ranks."""
        views = gather_rows(embeddings["rows"].transpose(0, 1)).unbind(1)
        of_invariance, of_variance, of_covariance = self.weights
        return {
            "invariance": of_invariance * invariance(*views),
            "variance": of_variance * torch.stack([variance(z_MD) for z_MD in views]).mean(),
            "covariance": of_covariance * torch.stack([covariance(z_MD) for z_MD in views]).sum(),
        }
