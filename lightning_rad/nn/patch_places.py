"""Where the patches of a network lie on the image."""

from __future__ import annotations

import copy
from collections import defaultdict
from math import isqrt
from typing import Any, Final

import torch
from timm.layers import Conv2dSame, get_same_padding
from torch import Tensor, nn

from lightning_rad.nn.patches import patches

_STRIDED: Final = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def patch_shift(net: nn.Module, channels: int, side: int) -> float:
    """How far patches lie from the middles of their squares, in patches; below 0 is up and left.

    A map of g x g patches divides an image into as many squares, but a patch need not stand for the
    middle of its own: layers of stride 2, kernel 3 and padding 1, as in ResNets, look to both sides
    of every second pixel beginning with the first, so that their patches lie almost half a patch
    above and to the left, at a stride of 32 by 15.5 pixels. A heat map that is stretched over the
    image as if they did not is off by that much.

    Counted from what one forward pass on the meta device meets, without arithmetic and memory: a
    layer of kernel k and padding p whose inputs are j pixels apart moves what follows by
    ((k - 1) / 2 - p) j. Layers side by side, as a block and its shortcut, count as their mean; what
    else makes the map coarser is taken to look at its squares' middles. The same along both axes:
    -0.48 for ResNet-50, -0.05 for DenseNet-121, 0 for ConvNeXt and transformers.

    net: of timm, with a square last map. channels, side: of an image that it takes.
    """
    moved: dict[int, list[float]] = defaultdict(list)
    apart = 1

    def met(layer: Any, given: tuple[Tensor, ...]) -> None:
        nonlocal apart
        here = side // given[0].shape[-1]
        kernel, before = _first(layer.kernel_size), _first(layer.padding)
        if isinstance(layer, Conv2dSame):  # more of its padding lies behind
            before = get_same_padding(given[0].shape[-1], kernel, _first(layer.stride), 1) // 2
        moved[here].append(((kernel - 1) / 2 - before) * here)
        apart = max(apart, here * _first(layer.stride))

    probe = _on_meta(net).eval()
    for layer in probe.modules():
        if isinstance(layer, _STRIDED) and _first(layer.stride) > 1:
            layer.register_forward_pre_hook(met)
    with torch.no_grad():
        kind = next(probe.parameters()).dtype
        image = torch.empty(1, channels, side, side, dtype=kind, device="meta")
        tokens_BPD = patches(probe, probe.forward_features(image))  # type: ignore[operator]
    assert tokens_BPD is not None, "a network with patches"
    stride = side / isqrt(tokens_BPD.shape[1])
    first = sum(sum(each) / len(each) for each in moved.values()) + (stride - apart) / 2
    return (first - (stride - 1) / 2) / stride


def _on_meta(net: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes alone; the values are never copied."""
    held = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in net.parameters()}
    memo: dict[int, Any] = {**held, **{id(b): b.to("meta") for b in net.buffers()}}
    return copy.deepcopy(net, memo)


def _first(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]
