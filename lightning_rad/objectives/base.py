"""What every objective is: embed a batch, turn the embeddings into named loss terms.

Everything that learning depends on is here or in the objective itself; callbacks only watch. The
random state of each step is a function of (seed, optimiser step, micro-step, rank), because a
checkpoint holds no generator state: a resumed run draws what the undisturbed one would have.

Shape letters: V views, B units of this rank, D features, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_rad.collectives import broadcast
from lightning_rad.nn.encoders import Encoder
from lightning_rad.objectives.loss_guard import Guard, LossGuard
from lightning_rad.objectives.parts import embed_in_parts
from lightning_rad.objectives.requirements import (
    require_accumulation,
    require_embed_at_once,
    require_image_size,
    require_same_name,
    require_views,
    require_wide_twin,
)
from lightning_rad.optim.decay_groups import decay_groups
from lightning_rad.randomness import hash64
from lightning_rad.schema import LabelledBatch, ViewBatch

OptimizerFactory = Callable[[Iterable[dict[str, Any]]], Optimizer]
"""Builds the optimiser from parameter groups (decayed, not decayed)."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Builds the learning-rate schedule, stepped each optimiser step, from the run's total steps."""

Embeddings = dict[str, Tensor]
"""What an objective compares, by name: tensors [V, B, D], V being 1 where there is one a unit."""


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

    most_views: ClassVar[int | None] = None
    """Most views of a unit that the objective makes use of; None is any number."""

    accumulates: ClassVar[bool] = True
    """Whether the objective allows an optimiser step of several micro-batches."""

    embeds_apart: ClassVar[bool] = True
    """Whether `embed` treats each unit by itself, so that a batch may be embedded in parts."""

    embed_at_once: int | None = None
    """Units of this rank that `embed` is given at a time; None is all. To be set before the fit."""

    guard: Guard = Guard()
    """Which losses leave a step out and when they end the run. To be set before the fit."""

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
        self._micro = 0
        self._losses = LossGuard(self.guard)

    @abstractmethod
    def embed(self, batch: ViewBatch) -> Embeddings:
        """Embeddings of this rank's rows, not normalised.

        Leaves nothing behind (what is to be kept is for `terms`): a part of a batch that is
        embedded in parts passes twice.
        """

    @abstractmethod
    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """Named scalar loss terms, whose sum is minimised."""

    def after_step(self, taken: bool) -> None:
        """Move what follows the encoder (twin, queue), once an optimiser step.

        taken: False where the step was left out: a loss was bad, a float16 gradient overflowed.
        """

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        """The sum of the terms; logs each as `train/<term>`."""
        terms = self.terms(embed_in_parts(self.embed, batch, self.embed_at_once), batch)
        loss = torch.stack(list(terms.values())).sum()
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, batch_size=batch.views.shape[1])
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)
        self._losses.see(self, loss, batch)
        return loss

    def on_after_backward(self) -> None:
        """Leave the step out where a rank's loss is bad."""
        self._losses.settle(self)

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
        require_accumulation(self, self.trainer.accumulate_grad_batches)  # a callback may change it
        self._micro = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(self._seed_of("step", self.global_rank))
        self._losses.begin(self, self._micro)

    def shuffle_order(self, rows: int) -> Tensor:
        """A permutation [rows] for ShuffleBN, drawn anew each (micro-)step, alike on every rank."""
        generator = torch.Generator().manual_seed(self._seed_of("shuffle", 0))
        return torch.randperm(rows, generator=generator).to(self.device, non_blocking=True)

    def _seed_of(self, purpose: str, rank: int) -> int:
        return int(hash64(purpose, self._seed, self.global_step, self._micro, rank)) >> 1

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser is given; a group may have a learning rate of its own."""
        return decay_groups(self)

    def configure_optimizers(self) -> Any:
        """The optimiser over decay groups and, if there is one, its per-step schedule."""
        optimizer = self._optimizer(self.parameter_groups())
        if self._schedule is None:
            return optimizer
        schedule = self._schedule(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step, then move what follows the encoder."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        taken: list[bool] = []
        hook = inner.register_step_post_hook(lambda o, *_: taken.append(not _overflowed(o)))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        hook.remove()
        self.after_step(any(taken) and not self._losses.skipping)
        self._losses.end(self)

    @property
    def untrained(self) -> bool:
        """Whether every step so far was left out for its loss."""
        return self.global_step == self._losses.skipped

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run. Raises ValueError for a run without end."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("a schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        return int(steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the objective beside its weights, and say how many steps were left out."""
        checkpoint["objective"] = type(self).__name__
        checkpoint["losses"] = self._losses.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another objective by its name, not tensor by tensor."""
        require_same_name(checkpoint.get("objective"), type(self).__name__)
        if "losses" in checkpoint:
            self._losses.load_state_dict(checkpoint["losses"])

    def setup(self, stage: str) -> None:
        """Refuse, before the first step, what this objective cannot train on."""
        if stage == "fit":
            self._losses = LossGuard(self.guard)
            self.require(self.trainer.datamodule)  # type: ignore[attr-defined]

    def require(self, data: Any) -> None:
        """Raise ValueError where the data module or the trainer is not what the objective needs."""
        require_views(self, data)
        require_image_size(self.encoder, data)
        require_accumulation(self, self.trainer.accumulate_grad_batches)
        require_wide_twin(self, self.trainer.precision)
        own = data.global_batch // self.trainer.world_size
        require_embed_at_once(self, self.embed_at_once, own)

    def on_validation_start(self) -> None:
        """Measure one encoder: batch norms that see one rank each take rank 0's statistics."""
        broadcast(self.encoder.buffers())


def embed_views(views_VB1HW: Tensor, *modules: nn.Module) -> Tensor:
    """[V, B, D]: all views in one pass through a chain of modules.

    One pass over all views means that batch statistics are those of both views together, as in
    the official SimCLR code.
    """
    x = views_VB1HW.flatten(0, 1)
    for module in modules:
        x = module(x)
    return x.view(*views_VB1HW.shape[:2], -1)


def embed_each_view(views_VB1HW: Tensor, *modules: nn.Module) -> Tensor:
    """[V, B, D]: a pass a view, each with batch statistics of its own (BYOL, MoCo v3)."""
    return torch.stack([embed_views(view[None], *modules)[0] for view in views_VB1HW])


def _overflowed(optimizer: Optimizer) -> bool:
    """Whether a fused optimiser, which float16 scaling always calls, left its step out itself."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item())
