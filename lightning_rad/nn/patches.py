"""What the last map of a network of timm says of each place, and what its features make of that.

Shape letters: B images, P patches, D features, H W sides of the map.
"""

from __future__ import annotations

from itertools import dropwhile
from math import isqrt
from typing import Any, Final

import torch
from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

MEANS: Final = ("avg", "fast", "fastavg")
"""Names of a pooling layer of timm that takes the mean."""


def patches(net: nn.Module, map_: Any) -> Tensor | None:
    """[B, P, D] of the last map of a network, row by row; None where it is no map."""
    if not isinstance(map_, Tensor) or map_.ndim not in (3, 4):
        return None
    if map_.ndim == 3:
        return map_[:, _prefix(net) :]
    if _channels_last(net):
        return map_.flatten(1, 2)
    return map_.flatten(2).transpose(1, 2)


def as_map(net: nn.Module, tokens_BPD: Tensor, *, sequence: bool) -> Tensor:
    """The map that these patches are of, as the head of the network takes it.

    Of a square image. sequence: whether that is [B, P, D], as a plain transformer's is, not a grid;
    where a network puts other tokens first (class token, registers) they are zero here. Raises
    ValueError for patches that make no square grid.
    """
    if sequence:
        first = tokens_BPD.new_zeros(len(tokens_BPD), _prefix(net), tokens_BPD.shape[2])
        return torch.cat([first, tokens_BPD], 1)
    side = isqrt(tokens_BPD.shape[1])
    if side * side != tokens_BPD.shape[1]:
        raise ValueError(f"{tokens_BPD.shape[1]} patches make no square: take square images")
    map_BHWD = tokens_BPD.reshape(len(tokens_BPD), side, side, -1)
    return map_BHWD if _channels_last(net) else map_BHWD.permute(0, 3, 1, 2)


def averages_map(net: nn.Module) -> bool:
    """Whether features are the plain mean over the places of the last map.

    Read from how the network is built: a pooling layer of timm that takes means, and behind it
    nothing that computes. Dropout there counts, for it puts zeros into single features.
    """
    for holder in (net, getattr(net, "head", None)):
        pool = getattr(holder, "global_pool", None)
        if holder is None or not isinstance(pool, SelectAdaptivePool2d):
            continue
        behind = _behind(holder, pool) + ([] if holder is net else _behind(net, holder))
        dropped = any(getattr(part, "drop_rate", 0.0) for part in (net, holder))
        return pool.pool_type in MEANS and not dropped and all(map(_passes_on, behind))
    return False


def require_patches(net: nn.Module, name: str, features: int) -> None:
    """Raise ValueError unless features [B, `features`] are made of the network's last patches."""
    has_map = hasattr(net, "forward_features") and hasattr(net, "forward_head")
    if not has_map or getattr(net, "num_features", None) != features:
        raise ValueError(no_map(name, features))
    others = _prefix(net) and (
        getattr(net, "global_pool", "avg") not in ("avg", "avgmax", "max")
        or getattr(net, "pool_include_prefix", False)
    )
    if others or getattr(net, "global_pool", None) == "token":
        raise ValueError(
            f"encoder '{name}': its features do not depend on its last patches; set kwargs "
            "{class_token: false, global_pool: avg}"
        )


def no_map(name: str, features: int) -> str:
    """What is said of a network without patches."""
    return (
        f"encoder '{name}': tokens need a timm model whose map is as wide "
        f"as its features, {features}"
    )


def sensitivity(
    net: nn.Module, tokens_BPD: Tensor, direction_BD: Tensor, *, sequence: bool
) -> Tensor:
    """[B, D]: how much features move along a direction with each channel of the map.

    The mean over patches of d(direction . head(tokens)) / d tokens: the weights of Grad-CAM
    (arXiv:1610.02391, equation 1) at the last map, for a score that is linear in the features. The
    head runs once more, on a copy, and only the copy gets a gradient; also without gradients all
    around. The copy is of the precision that the head had them in; the mean is float32 or wider.
    sequence: as of `as_map`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        copy_BPD = tokens_BPD.detach().clone().requires_grad_()
        map_ = as_map(net, copy_BPD, sequence=sequence)
        features_BD: Tensor = net.forward_head(map_)  # type: ignore[operator]
        score = (features_BD * direction_BD.detach().clone()).sum()
        (slope_BPD,) = torch.autograd.grad(score, copy_BPD)
    return slope_BPD.mean(1, dtype=torch.promote_types(torch.float32, slope_BPD.dtype))


def _prefix(net: nn.Module) -> int:
    return int(getattr(net, "num_prefix_tokens", 0))


def _channels_last(net: nn.Module) -> bool:
    return str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")


def _behind(holder: nn.Module, part: nn.Module) -> list[nn.Module]:
    """What a module registers after one of its parts."""
    return list(dropwhile(lambda child: child is not part, holder.children()))[1:]


def _passes_on(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return module.p == 0
    return isinstance(module, nn.Identity | nn.Flatten)
