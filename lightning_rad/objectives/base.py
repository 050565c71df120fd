"""What every objective is: embed a batch, turn the embeddings into named loss terms.

Everything that learning depends on is here or in the objective itself; callbacks only watch. The
random state of each step is a function of (seed, optimiser step, micro-step, rank), because a
checkpoint holds no generator state: a resumed run draws what the undisturbed one would have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_rad.nn.encoders import Encoder
from lightning_rad.optim.decay_groups import decay_groups
from lightning_rad.randomness import hash64
from lightning_rad.schema import LabelledBatch, ViewBatch

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]
"""Builds the optimiser from parameter groups (decayed, not decayed)."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Builds the learning-rate schedule, stepped each optimiser step, from the run's total steps."""


class Objective(LightningModule, ABC):
    """Base of all objectives; subclasses are final and never import one another.

    Args:
        encoder: The network that is pretrained; `embed` decides what comes behind it.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments but for optimiser and total steps;
            none keeps the rate constant.
        seed: Seed of what is random inside the modules (dropout, mixing); the views have their own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"views"})
    """Fields of ViewBatch that `embed` and `terms` read."""

    least_views: ClassVar[int] = 2
    """Fewest views of a unit that the objective can work with."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._optimizer = optimizer
        self._schedule = schedule
        self._seed = seed

    @abstractmethod
    def embed(self, batch: ViewBatch) -> Tensor:
        """Embeddings of this rank's rows."""

    @abstractmethod
    def terms(self, embeddings: Tensor, batch: ViewBatch) -> dict[str, Tensor]:
        """Named scalar loss terms, whose sum is minimised."""

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        """The sum of the terms; logs each as `train/<term>`."""
        terms = self.terms(self.embed(batch), batch)
        loss = torch.stack(list(terms.values())).sum()
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, batch_size=batch.views.shape[1])
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)
        return loss

    def validation_step(
        self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Frozen features [B, D] float32 with what a probe needs beside them."""
        return {
            "features": self.encoder(batch.images).float(),
            "labels": batch.labels,
            "patient": batch.patient,
            "image": batch.image,
        }

    test_step = validation_step
    predict_step = validation_step

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the global generators for this step."""
        micro = batch_idx % self.trainer.accumulate_grad_batches
        name = hash64("step", self._seed, self.global_step, micro, self.global_rank)
        torch.manual_seed(int(name) >> 1)

    def configure_optimizers(self) -> Any:
        """The optimiser over decay groups and, if there is one, its per-step schedule."""
        optimizer = self._optimizer(decay_groups(self))
        if self._schedule is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("a schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        schedule = self._schedule(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Refuse, before the first step, views that this objective cannot use."""
        if stage != "fit":
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        name = type(self).__name__
        missing = sorted(self.needs - data.gives)
        if missing:
            raise ValueError(
                f"{name} needs the batch field(s) {missing}; the data gives {sorted(data.gives)}"
            )
        if len(data.views) < self.least_views:
            raise ValueError(
                f"{name} needs at least {self.least_views} views of a unit; "
                f"data.views has {len(data.views)}"
            )


def embed_views(encoder: nn.Module, head: nn.Module, views_VB1HW: Tensor) -> Tensor:
    """[V * B, D]: all views in one pass, rows in view-major order.

    One pass over all views means that batch statistics are those of both views together, as in
    the official SimCLR code.
    """
    out: Tensor = head(encoder(views_VB1HW.flatten(0, 1)))
    return out
