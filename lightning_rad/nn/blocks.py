"""What is sharded by itself: parts of an objective, and the repeated blocks of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from torch import nn

CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

LEAST: Final = 0.5
"""Share of the parameters below which blocks are not what the network is made of."""


class Part(nn.Module):
    """A module that an objective calls as a whole, and that is sharded by itself.

    Whoever uses its parameters goes through its `forward`: where they are sharded, that gathers
    them.
    """

    def blocks(self) -> list[nn.Module]:
        """What in it is sharded piece by piece; nothing, unless a class says otherwise."""
        return []


def repeated_blocks(net: nn.Module) -> list[nn.Module]:
    """The smallest modules that stand in a row and are made of several layers.

    Transformer layers of ViT and Swin, residual blocks of ResNet, ConvNeXt, RegNet and
    EfficientNet, dense layers of DenseNet, in the order in which the network holds them. A row is
    a Sequential, ModuleList or ModuleDict, or a module all of whose parts are of one class; a
    module that holds a row itself (a stage) gives way to what stands in it. A layer is a module
    with a weight of two dimensions or more.

    No block lies in another and none shares a parameter with anything outside it. Where this finds
    less than half of the parameters, because a network is built otherwise (VGG, Inception), the
    network itself is the one block.
    """
    uses = Counter(id(p) for m in net.modules() for p in m.parameters(recurse=False))
    found = [b for b in dict.fromkeys(_in(net, in_row=False)) if _shares_nothing(b, uses)]
    whole = sum(p.numel() for p in net.parameters())
    held = sum(p.numel() for block in found for p in block.parameters())
    return found if held >= LEAST * whole and found else [net]


def _in(module: nn.Module, *, in_row: bool) -> Iterator[nn.Module]:
    """The blocks of a module, which is itself one if it is in a row and holds no further row."""
    stands = in_row and _several_layers(module) and not isinstance(module, CONTAINERS)
    if stands and not any(_holds_row(inner) for inner in module.modules()):
        yield module
        return
    row = isinstance(module, CONTAINERS) or _holds_row(module)
    for child in module.children():
        yield from _in(child, in_row=row)


def _holds_row(module: nn.Module) -> bool:
    """Whether several modules of several layers each stand in a row directly under a module."""
    parts = [child for child in module.children() if any(True for _ in child.parameters())]
    deep = [child for child in parts if _several_layers(child)]
    alike = len(deep) == len(parts) and len({type(child) for child in parts}) == 1
    return len(deep) > 1 and (alike or isinstance(module, CONTAINERS))


def _several_layers(module: nn.Module) -> bool:
    layers = [m for m in module.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    return len(layers) > 1


def _shares_nothing(block: nn.Module, uses: Counter[int]) -> bool:
    """Whether every parameter is held by this block's own modules alone."""
    own = Counter(id(p) for m in block.modules() for p in m.parameters(recurse=False))
    return all(uses[key] == count for key, count in own.items())
