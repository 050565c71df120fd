"""Parts of a network that do not learn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def freeze(net: nn.Module, frozen: Sequence[str]) -> None:
    """Take the parameters of some submodules, by dotted name, out of what learns.

    Raises ValueError, naming what there is, for a name without parameters.
    """
    known = dict(net.named_modules())
    for name in frozen:
        part = known.get(name) if name else None
        if part is None or not any(True for _ in part.parameters()):
            children = [
                n for n, child in net.named_children() if any(True for _ in child.parameters())
            ]
            raise ValueError(
                f"frozen: the encoder has no part '{name}' with parameters; it has {children}"
            )
        part.requires_grad_(False)
