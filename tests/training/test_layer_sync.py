"""What `trainer.sync_batchnorm` leaves in the network, whoever the strategy is."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy

from lightning_rad.nn.batch_norms import is_fused
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.training.layer_sync import SyncBatchNorms, keep_activations
from lightning_rad.training.strategies import DDP, Sharded
from tests.gloo import run_on_ranks
from tests.training.spread_nets import on_ranks, sgd


def _norms(strategy: Callable[[], Any]) -> list[str]:
    torch.manual_seed(0)
    encoder = Encoder("test_efficientnet")
    objective = SimCLR(
        encoder, projector=lambda width: Projector(width, hidden=8, out_features=8), optimizer=sgd
    )
    with suppress(ValueError):  # such norms need a GPU to train, which DDP says at the start
        on_ranks(objective, strategy(), sync_batchnorm=True, limit_train_batches=0, max_epochs=1)
    return [type(m).__name__ for m in encoder.modules() if is_fused(m)]


@pytest.mark.parametrize("strategy", [DDP, Sharded])
def test_a_norm_that_holds_an_activation_keeps_it(strategy: Callable[[], Any]) -> None:
    for fused in run_on_ranks(_norms, 2, strategy):
        assert fused


def test_where_the_trainer_synchronises_nothing_nothing_is() -> None:
    strategy = DDPStrategy()
    keep_activations(strategy)
    assert strategy._layer_sync is None


def test_what_was_synchronised_computes_the_same_when_it_is_reverted() -> None:
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = Encoder("test_efficientnet").fresh(0).eval()
    before = encoder(images)
    sync = SyncBatchNorms()
    assert torch.equal(sync.revert(sync.apply(encoder))(images), before)
