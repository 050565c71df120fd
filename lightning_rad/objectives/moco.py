"""MoCo v1 and v2: a view finds the other, as a slow twin sees it, among the keys of past steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

from torch import Tensor

from lightning_rad.collectives import gather_detached, world_size
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.unit_rows import unit_rows
from lightning_rad.losses.info_nce import info_nce
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
    embed_views,
)
from lightning_rad.objectives.requirements import (
    require_room,
    require_temperature,
    tell_unshuffled,
)
from lightning_rad.schema import ViewBatch


@final
class MoCo(Objective):
    """Momentum Contrast (v1: arXiv:1911.05722, v2: arXiv:2003.04297).

    View 0 is the query, view 1 the key; the loss is not symmetric. v1 and v2 differ in projector,
    views, temperature and schedule, so in configuration alone. Follows moco/builder.py of
    facebookresearch/moco; that code moves the twin before each forward pass and this one after
    each step, which is the same sequence, for the first of its moves changes nothing. Where the
    code asks for a queue that the global batch divides, this queue wraps around anywhere.

    ShuffleBN (section 3.3) is done where a batch norm of the twin sees one rank only, so not with
    synchronised batch norms, and has no effect on one process. With accumulation the keys of all
    micro-batches enter the queue after the step.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder.
        queue: The keys compared with; its width is the projector's.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        momentum: The part of itself the twin keeps at each step.
        temperature: Divides the cosine similarities; at least 0.01.
        backend: How InfoNCE is computed; `reference` is the dense definition.
        seed: Seed of ShuffleBN and of what is random inside the modules.
    """

    most_views: ClassVar[int | None] = 2

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Callable[[int], Projector],
        queue: Callable[[int], FeatureQueue],
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        momentum: float = 0.999,
        temperature: float = 0.07,
        backend: Backend = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        self.temperature = require_temperature(temperature)
        self.backend = backend
        self.projector = projector(encoder.out_features)
        self.twin = MomentumTwin(self.encoder, self.projector, momentum=momentum)
        self.queue = queue(self.projector.out_features)

    def require(self, data: Any) -> None:
        """Refuse also a queue that one optimiser step would overrun."""
        super().require(data)
        require_room(self.queue, data.global_batch * self.trainer.accumulate_grad_batches)

    def on_fit_start(self) -> None:
        """Begin with nothing staged, and say where ShuffleBN cannot work."""
        self.queue.drop()
        tell_unshuffled(self.twin)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Queries of view 0 and keys of view 1, [1, B, D] each."""
        queries_1BD = embed_views(batch.views[:1], self.encoder, self.projector)
        order_M = self.shuffle_order(len(batch.unit) * world_size())
        return {"query": queries_1BD, "key": self.twin.shuffled(batch.views[1], order_M)[None]}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """InfoNCE of each query: its own key against the queue as it was before this step."""
        key_BD = unit_rows(embeddings["key"][0])
        loss = info_nce(
            embeddings["query"][0],
            key_BD,
            self.queue.keys_KD,
            temperature=self.temperature,
            backend=self.backend,
        )
        self.queue.stage(gather_detached(key_BD))
        return {"info_nce": loss}

    def after_step(self, taken: bool) -> None:
        """The twin follows and the new keys replace the oldest."""
        if taken:
            self.twin.follow(self.encoder, self.projector)
            self.queue.advance()
        else:
            self.queue.drop()
