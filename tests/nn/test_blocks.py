"""Blocks of encoders: of every family, apart from one another, and most of the network."""

from collections import Counter

import pytest
import torch
from torch import nn

from lightning_rad.nn.blocks import repeated_blocks
from lightning_rad.nn.encoders import Encoder

FAMILIES = {
    "vit_tiny_patch16_224": ("Block", 12),
    "deit_tiny_patch16_224": ("Block", 12),
    "swin_tiny_patch4_window7_224": ("SwinTransformerBlock", 12),
    "convnext_atto": ("ConvNeXtBlock", 12),
    "resnet18": ("BasicBlock", 8),
    "resnetv2_50": ("PreActBottleneck", 16),
    "torchvision/resnet50": ("Bottleneck", 16),
    "regnety_004": ("Bottleneck", 15),
    "efficientnet_b0": ("InvertedResidual", 15),  # and one block of another class before them
    "densenet121": ("DenseLayer", 58),
    "mobileone_s0": ("MobileOneBlock", 42),
    "coatnet_0_rw_224": ("TransformerBlock2d", 9),
}
COARSE = ("vgg11", "inception_v3", "dla34")


def made(name: str) -> Encoder:
    with torch.device("meta"):
        return Encoder(name).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_known_by_its_blocks(name: str) -> None:
    kind, count = FAMILIES[name]
    assert Counter(type(block).__name__ for block in made(name).blocks())[kind] == count


@pytest.mark.parametrize("name", [*FAMILIES, *COARSE])
def test_blocks_are_apart_hold_most_parameters_and_are_called_once_each(name: str) -> None:
    encoder = made(name)
    blocks = encoder.blocks()
    owners = Counter(id(p) for block in blocks for p in block.parameters())
    assert set(owners.values()) == {1}
    held = sum(p.numel() for block in blocks for p in block.parameters())
    assert held >= sum(p.numel() for p in encoder.parameters()) / 2
    calls: Counter[nn.Module] = Counter()
    for block in blocks:
        block.register_forward_pre_hook(lambda module, _: calls.update([module]))
    with torch.no_grad():
        encoder(
            torch.zeros(2, 1, encoder.built_for or 224, encoder.built_for or 224, device="meta")
        )
    assert calls == Counter(blocks)


@pytest.mark.parametrize("name", COARSE)
def test_a_network_built_otherwise_is_one_block(name: str) -> None:
    encoder = made(name)
    assert encoder.blocks() == [encoder.net]


def layer() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)


def test_a_block_that_shares_a_parameter_with_anything_outside_is_none() -> None:
    net = nn.Module()
    net.rows = nn.ModuleList([Pair() for _ in range(6)])
    assert repeated_blocks(net) == list(net.rows)
    net.rows[0].first.weight = net.rows[1].second.weight
    assert repeated_blocks(net) == list(net.rows)[2:]
    net.rows[2].second.weight = net.rows[2].first.weight  # within itself it may
    assert repeated_blocks(net) == list(net.rows)[2:]


def test_a_block_that_stands_twice_is_named_once() -> None:
    pair = Pair()
    net = nn.Sequential(pair, Pair(), pair)
    assert repeated_blocks(net) == [net[0], net[1]]


def test_stages_give_way_to_what_stands_in_them_and_containers_are_no_blocks() -> None:
    stages = nn.Sequential(*(nn.Sequential(Pair(), Pair()) for _ in range(2)))
    assert repeated_blocks(stages) == [pair for stage in stages for pair in stage]
    plain = nn.Sequential(layer(), layer())
    assert repeated_blocks(plain) == [plain]
