"""Which parameters weight decay (and LARS's trust ratio) applies to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def decay_groups(
    module: nn.Module, no_decay: Sequence[str] = (), rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: those that decay, then those that do not.

    Not decayed, and not adapted by LARS: biases, parameters of norms, tensors of fewer than two
    dimensions (among them a learned temperature), what a submodule's `no_weight_decay()` names (a
    convention of timm, for position embeddings and class tokens), and `no_decay`: names of
    parameters, whole or their last parts ("pos_embed" for "encoder.net.pos_embed"). The first
    group leaves weight decay to the optimiser. Each trainable parameter is in one group, once;
    frozen ones are in none, empty groups are left out.

    rates: learning rates of submodules, by dotted name; of each follow two groups more, with that
    rate as their "lr". Where one submodule holds another, the inner one's rate holds in it. A
    schedule multiplies every group's own rate alike.

    Raises ValueError for a name that no parameter, or no submodule, has, for a rate below 0, and
    where nothing is trainable.
    """
    excluded = _excluded_names(module, no_decay)
    # a tied parameter has several names; one excluded name is enough
    spared = {
        id(p) for name, p in module.named_parameters(remove_duplicate=False) if name in excluded
    }
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{type(module).__name__} has no trainable parameter to optimise")
    places = _places(module, rates or {})
    groups: list[dict[str, Any]] = []
    for place, rate in {"": None, **(rates or {})}.items():
        here = [p for p in trainable if places.get(id(p), "") == place]
        own = {} if rate is None else {"lr": rate}
        decayed = {"params": [p for p in here if id(p) not in spared]}
        kept = {"params": [p for p in here if id(p) in spared]}
        groups += [decayed | own, kept | {"weight_decay": 0.0, "adapt": False} | own]
    return [group for group in groups if group["params"]]


def _places(module: nn.Module, rates: Mapping[str, float]) -> dict[int, str]:
    """Under which of the named submodules each parameter is, by its id."""
    known = dict(module.named_modules(remove_duplicate=False))
    for name, rate in rates.items():
        if not name or name not in known:
            raise ValueError(
                f"rates: {type(module).__name__} has no submodule '{name}'; "
                f"it has {[n for n, _ in module.named_children()]}"
            )
        if not rate >= 0:
            raise ValueError(f"rates: {rate} of '{name}' is below 0")
    inwards = sorted(rates, key=lambda name: name.count("."))
    return {id(p): name for name in inwards for p in known[name].parameters()}


def _excluded_names(module: nn.Module, no_decay: Sequence[str]) -> set[str]:
    excluded = set()
    names = []
    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        declared = getattr(owner, "no_weight_decay", None)
        excluded |= {prefix + name for name in declared()} if callable(declared) else set()
        is_norm = "norm" in type(owner).__name__.lower()
        for leaf, parameter in owner.named_parameters(recurse=False):
            names.append(prefix + leaf)
            if is_norm or leaf == "bias" or parameter.ndim < 2:
                excluded.add(prefix + leaf)
    for wanted in no_decay:
        matches = {name for name in names if f".{name}".endswith(f".{wanted}")}
        if not matches:
            raise ValueError(
                f"no_decay: no parameter of {type(module).__name__} ends in '{wanted}'"
            )
        excluded |= matches
    return excluded
