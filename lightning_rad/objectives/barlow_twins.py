"""Barlow Twins: each feature of one view correlates with the same of the other and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from torch import Tensor

from lightning_rad.collectives import gather_rows
from lightning_rad.losses.barlow_twins import barlow_twins
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
class BarlowTwins(Objective):
    """Self-Supervised Learning via Redundancy Reduction (arXiv:2103.03230).

    Follows `main.py` of facebookresearch/barlowtwins: views pass one by one, and the correlations
    are those of the global batch, here over rows gathered with gradient. Accumulating gradients
    over k micro-batches averages k losses whose correlations are over 1/k of the rows each.

    Differences: that code sums the correlations over W ranks without telling autograd, so that its
    gradient is 1/W of the loss's; ours is the loss's. It gives weights a rate of 0.2 and biases and
    norms one of 0.0048; our optimisers have one. LARS (velocity "adapted") does not see the scale
    of a gradient where it adapts, so that `scale` 0.0048 / 0.2 = 0.024 with rate 0.2 and 0.024 of
    the weight decay takes the same steps. Its networks have batch norms that are synchronised over
    ranks: set trainer.sync_batchnorm.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder; wide.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        redundancy: Weight of the correlations between different features; at least 0.
        scale: Multiplies the loss; above 0.
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
        redundancy: float = 0.0051,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if not redundancy >= 0:
            raise ValueError(f"redundancy must be at least 0, got {redundancy}")
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.redundancy, self.scale = redundancy, scale
        self.projector = projector(encoder.out_features)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Projections of both views, [2, B, D]."""
        return {"rows": embed_each_view(batch.views, self.encoder, self.projector)}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """How far the global batch's correlations are from the identity; alike on all ranks."""
        a_MD, b_MD = gather_rows(embeddings["rows"].transpose(0, 1)).unbind(1)
        invariance, redundancy = barlow_twins(a_MD, b_MD)
        return {
            "invariance": self.scale * invariance,
            "redundancy": self.scale * self.redundancy * redundancy,
        }
