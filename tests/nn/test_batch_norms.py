"""Synchronised batch norms compute, on one rank, what they did before."""

import pytest
import torch
from torch import nn

from lightning_rad.nn.batch_norms import is_fused, synchronise
from lightning_rad.nn.encoders import Encoder


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "regnety_002", "resnet18"])
def test_a_norm_that_holds_an_activation_keeps_it(name: str, training: bool) -> None:
    images = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = Encoder(name).fresh(0).train(training)
    changed = synchronise(Encoder(name).fresh(0).train(training))
    norms = [m for m in changed.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert any(map(is_fused, norms)) is (name != "resnet18")
    assert torch.equal(changed(images), plain(images))
    assert plain.state_dict().keys() == changed.state_dict().keys()
