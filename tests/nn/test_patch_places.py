"""Where patches lie: counted from layers, and seen in what moves them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.patch_places import patch_shift


def seen(net: nn.Module, side: int) -> float:
    """Middle of the pixels that move the middle patch, from the middle of its square, in patches.

    Of a network of which all weights are alike, so that a patch looks to all sides equally.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1.0 / layer.weight[0].numel())
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    map_ = net.double().eval().forward_features(image)
    sides = map_.shape[-1]
    (slope,) = torch.autograd.grad(map_[..., sides // 2, sides // 2].sum(), image)
    weight = slope[0, 0].abs().sum(0)
    middle = float((weight * (torch.arange(side) + 0.5)).sum() / weight.sum())
    return middle * sides / side - (sides // 2 + 0.5)


@pytest.mark.parametrize(
    ("name", "closely"), [("regnety_002", 0.01), ("densenet121", 0.01), ("resnet18", 0.1)]
)
def test_patches_lie_where_the_pixels_that_move_them_do(name: str, closely: float) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, in_chans=1)
    assert seen(net, 448) == pytest.approx(patch_shift(net, 1, 224), abs=closely)


@pytest.mark.parametrize(
    ("name", "kwargs", "shift"),
    [
        ("resnet50", {}, 0.5 / 32 - 0.5),
        ("resnet18", {"output_stride": 16}, 0.5 / 16 - 0.5),
        ("densenet121", {}, 14.5 / 32 - 0.5),
        ("convnext_atto", {}, 0.0),
        ("tf_efficientnet_b0", {}, 31.5 / 32 - 0.5),
        ("swin_tiny_patch4_window7_224", {}, 0.0),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, 0.0),
    ],
)
def test_shifts_of_known_networks(name: str, kwargs: dict[str, Any], shift: float) -> None:
    assert Encoder(name, kwargs=kwargs).patch_shift == pytest.approx(shift)


def test_the_size_of_the_image_does_not_matter_and_the_network_stays_as_it_was() -> None:
    net = timm.create_model("resnet10t", num_classes=0, in_chans=3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert patch_shift(net, 3, 96) == patch_shift(net, 3, 224) == patch_shift(net, 3, 512)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training
    assert not any(layer._forward_pre_hooks for layer in net.modules())
