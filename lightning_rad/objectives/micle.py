"""MICLe: two images of one patient case attract each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, final

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
class MICLe(Objective):
    """Multi-Instance Contrastive Learning (arXiv:2101.05224, ICCV 2021).

    The unit of the stream is the bag: `data.unit: study` or `patient`. Its views show different
    images of it where it has several, each augmented on its own, and one image twice where it has
    one; so the loss is NT-Xent and, where every bag has one image, SimCLR. The authors published
    no code for it: their REMEDIS code pairs two views of one image.

    An image that cannot be read is replaced by the next readable one of the set, as everywhere, so
    that rarely (`data.loading.max_bad_fraction` bounds it) a pair is of one image or two patients.

    A row of the same patient in another bag (two studies of one patient) is no negative: it leaves
    the denominator, by patient id, unless `faithful`, which keeps the paper's loss as it is
    written. A patient who is unknown excludes nothing. Accumulating gradients over k micro-batches
    averages k losses with 1/k of the negatives each.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        temperature: Divides the cosine similarities; at least 0.01.
        backend: How NT-Xent is computed; `reference` allows any batch size.
        exchange: How ranks see each other's rows: `gather`, all at once, or `ring`, one rank's
            after the other, for where all would not fit: three ranks' rows are held, and sent
            round twice a step.
        faithful: Count rows of the same patient in other bags as negatives.
        seed: Seed of what is random inside the modules.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views", "unit", "patient"})

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
        faithful: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        self.temperature = require_temperature(temperature)
        self.projector = projector(encoder.out_features)
        self.backend = backend
        self.exchange = exchange
        self.faithful = faithful

    def require(self, data: Any) -> None:
        """Refuse also a stream of single images, and one that may show the same image twice."""
        super().require(data)
        if data.unit == "image":
            raise ValueError(
                "MICLe pairs the images of a bag: data.unit must be study or patient, it is image"
            )
        if data.images != "distinct":
            raise ValueError(
                "MICLe pairs different images of a bag: data.shuffle.images must be distinct, "
                f"it is {data.images}"
            )

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Projections of all views, [V, B, D]."""
        return {"rows": embed_views(batch.views, self.encoder, self.projector)}

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """NT-Xent of this rank's rows against every rank's, but for other bags of a patient."""
        rows_ND = embeddings["rows"].flatten(0, 1)
        ids_N = batch.unit.repeat(len(batch.views))
        patients_N = batch.patient.repeat(len(batch.views))
        loss = nt_xent(
            rows_ND,
            exchange_rows(rows_ND, self.exchange),
            gather_detached(ids_N),
            temperature=self.temperature,
            groups_M=None if self.faithful else gather_detached(patients_N),
            offset=rank() * len(ids_N),
            gather=gather_detached,
            backend=self.backend,
        )
        return {"nt_xent": loss}
