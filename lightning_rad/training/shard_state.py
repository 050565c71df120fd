"""From a checkpoint, whoever wrote it, to the shards that this rank holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_rad.collectives import spread_like


class Room:
    """Empty tensors for what a checkpoint holds, laid out as the parameters they belong to.

    Called with the dotted key, size and dtype of each tensor: `state_dict.NAME` is a parameter or
    buffer, `optimizer_states.N.state.I.NAME` belongs to parameter I of optimiser N. Where sizes
    differ (a step count), or nothing here has the name, the tensor is whole, in host memory.
    """

    def __init__(self, state: Mapping[str, Tensor], optimizers: list[Optimizer]) -> None:
        self._like = {f"state_dict.{name}": x for name, x in state.items()}
        for n, optimizer in enumerate(optimizers):
            for i, p in enumerate(_numbered(optimizer)):
                self._like[f"optimizer_states.{n}.state.{i}"] = p

    def __call__(self, key: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        """Room for one tensor."""
        owner = key.rpartition(".")[0] if key.startswith("optimizer_states.") else key
        like = self._like.get(owner)
        if like is None or like.shape != size:
            return torch.empty(size, dtype=dtype)
        return torch.empty_like(like, dtype=dtype, requires_grad=False)


def spread_weights(loaded: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights by name, each as this rank holds its own: of a whole tensor the part that is here."""
    return {k: spread_like(x, own.get(k)) if _tensor(x) else x for k, x in loaded.items()}


def spread_optimizer(loaded: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state, each tensor of a parameter's size as this rank holds the parameter."""
    params = _numbered(optimizer)
    state = {
        i: {k: spread_like(x, params[i]) if _tensor(x) else x for k, x in of_one.items()}
        for i, of_one in loaded["state"].items()
    }
    return {**loaded, "state": state}


def _tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def _numbered(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
