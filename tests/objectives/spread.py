"""One global batch on however many ranks there are: its loss and DDP's gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_rad.collectives import gather_detached, rank, world_size
from lightning_rad.objectives.base import Objective
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import share

Make = Callable[[], Objective]
"""Builds an objective, always the same; a function of a module, for it goes to other processes."""


class Whole(nn.Module):
    """The objective's own path from views to loss, as one module that DDP can wrap."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: ViewBatch) -> Tensor:
        terms = self.objective.terms(self.objective.embed(batch), batch)
        return torch.stack(list(terms.values())).sum()


def loss_and_gradient(make: Make, whole: ViewBatch) -> tuple[float, dict[str, Tensor]]:
    """The mean loss over ranks, and the gradient, in eval mode and in float64."""
    model = Whole(make().double().eval())
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    loss: Tensor = wrapped(share(whole, rank(), world_size()))
    loss.backward()
    gradient = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(gather_detached(loss[None]).mean()), gradient


def assert_alike_on_ranks(make: Make, whole: ViewBatch, ranks: int) -> None:
    """Several gloo processes find the loss and the gradient of one, and there is a gradient."""
    loss, gradient = loss_and_gradient(make, whole)
    assert any(value.abs().max() > 1e-6 for value in gradient.values())
    for other_loss, other in run_on_ranks(loss_and_gradient, ranks, make, whole):
        assert other_loss == pytest.approx(loss, rel=1e-12)
        assert other.keys() == gradient.keys()
        for name, value in gradient.items():
            assert torch.allclose(other[name], value, rtol=1e-9, atol=1e-12), name
