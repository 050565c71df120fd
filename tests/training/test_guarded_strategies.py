"""A bad loss leaves a step out whole under every strategy, sharded gradients too."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins import DoublePrecision

from lightning_rad.training.strategies import DDP, Sharded
from tests.gloo import run_on_ranks
from tests.objectives.fixed import random_batches
from tests.objectives.test_loss_guard import (
    BAD,
    OPTIMISERS,
    assert_same,
    guarded,
    last_state,
    spoilt,
    without,
)
from tests.training.spread_nets import made

STRATEGIES = {
    "ddp": partial(DDP, gradient_as_bucket_view=True, static_graph=True),
    "sharded": Sharded,
}


def _last_state(strategy: str, optimiser: str, bad: bool) -> dict[str, torch.Tensor]:
    """Whole tensors, of a run of five batches of which one is bad or is not there."""
    batches = random_batches(5)
    given = spoilt(batches, BAD) if bad else without(batches, BAD)
    how = {"precision": None, "plugins": [DoublePrecision()], "gradient_clip_val": 0.5}
    make = partial(_in_float64, optimiser)
    return last_state(make, given, strategy=STRATEGIES[strategy](), **how)


def _in_float64(optimiser: str) -> Any:
    """A vision transformer, whose blocks are what is sharded."""

    def plain(groups: Any) -> torch.optim.Optimizer:  # LARS alone knows `adapt`
        rest = [{k: v for k, v in group.items() if k != "adapt"} for group in groups]
        return OPTIMISERS[optimiser](groups if optimiser == "lars" else rest)

    return guarded(partial(made, "moco", optimizer=plain))


@pytest.mark.parametrize("optimiser", ["adamw", "momentum", "lars"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_bad_batch_is_as_if_it_had_not_been(strategy: str, optimiser: str) -> None:
    kept, wanted = (run_on_ranks(_last_state, 2, strategy, optimiser, bad) for bad in (True, False))
    for mine, theirs in zip(kept, wanted, strict=True):
        assert_same(mine, theirs)
