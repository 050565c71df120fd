"""SimCLR: two views of a unit attract each other, all other rows of the global batch repel."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

from torch import Tensor

from lightning_rad.collectives import Exchange, exchange_rows, gather_detached, rank
from lightning_rad.kernels.choice import Backend
from lightning_rad.losses.nt_xent import nt_xent
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
    embed_views,
)
from lightning_rad.objectives.requirements import require_temperature
from lightning_rad.schema import ViewBatch


@final
class SimCLR(Objective):
    """A Simple Framework for Contrastive Learning of Visual Representations (arXiv:2002.05709).

    NT-Xent over all rows of all ranks (equation 1); what other ranks' rows say about this rank's
    enters its gradient through their log-sum-exps, three numbers a row. More than two
    views of a unit are all positives of each other. Accumulating gradients over k micro-batches
    averages k losses with 1/k of the negatives each: it is not the loss of the large batch.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder; its input width is the encoder's.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        temperature: Divides the cosine similarities; at least 0.01.
        backend: How NT-Xent is computed; `reference` allows any batch size.
        exchange: How ranks see each other's rows: `gather`, all at once, or `ring`, one rank's
            after the other, for where all would not fit: three ranks' rows are held, and sent
            round twice a step.
        seed: Seed of what is random inside the modules.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views", "unit"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Callable[[int], Projector],
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        temperature: float = 0.1,
        backend: Backend = "auto",
        exchange: Exchange = "gather",
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        self.temperature = require_temperature(temperature)
        self.projector = projector(encoder.out_features)
        self.backend = backend
        self.exchange = exchange

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Projections of all views, [V, B, D]."""
        return {"rows": embed_views(batch.views, self.encoder, self.projector)}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """NT-Xent of this rank's rows against every rank's."""
        rows_ND = embeddings["rows"].flatten(0, 1)
        ids_N = batch.unit.repeat(len(batch.views))
        loss = nt_xent(
            rows_ND,
            exchange_rows(rows_ND, self.exchange),
            gather_detached(ids_N),
            temperature=self.temperature,
            offset=rank() * len(ids_N),
            gather=gather_detached,
            backend=self.backend,
        )
        return {"nt_xent": loss}
