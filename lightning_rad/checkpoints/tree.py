"""A nested dict apart: its tensors under dotted keys, and the rest as plain data."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_PLAIN = (str, int, float, bool, type(None))
_DICTS = (dict, OrderedDict, defaultdict)

Leaf = tuple[str, Any]
"""Dotted key and value."""


def split(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(a copy of the tree with None for each tensor, the tensors by dotted key).

    Dicts keyed by str and int, lists, tuples, str, int, float, bool, None and dense tensors make up
    a tree; an OrderedDict and a defaultdict become dicts. Raises ValueError, naming the place, for
    anything else: what is written can always be read again without running code.
    """
    seen: set[str] = set()
    tensors: dict[str, Tensor] = {}

    def leaf(key: str, value: Any) -> Any:
        if key in seen:
            raise ValueError(f"checkpoint: two entries would both be called {key}")
        seen.add(key)
        if isinstance(value, Tensor):
            tensors[key] = _dense(key, value)
            return None
        if type(value) not in _PLAIN:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise ValueError(
                f"checkpoint: {key} is a {kind}; a checkpoint holds dicts, lists, tuples, str, "
                "int, float, bool, None and tensors"
            )
        return value

    return _mapped(tree, "", leaf), tensors


def join(tree: dict[str, Any], tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """The tree with the tensors in their places: the inverse of `split`."""
    joined: dict[str, Any] = _mapped(tree, "", tensors.get)
    return joined


def _mapped(value: Any, key: str, leaf: Callable[[str, Any], Any]) -> Any:
    if type(value) in _DICTS:
        return {name: _mapped(item, below, leaf) for name, item, below in _items(value, key)}
    if type(value) in (list, tuple):
        return type(value)(_mapped(v, _below(key, i), leaf) for i, v in enumerate(value))
    return leaf(key, value)


def _items(value: dict[Any, Any], key: str) -> Iterator[tuple[Any, Any, str]]:
    for name, item in value.items():
        if type(name) not in (str, int):
            raise ValueError(f"checkpoint: {key} has the key {name!r}; keys are str or int")
        yield name, item, _below(key, name)


def _below(key: str, name: str | int) -> str:
    return f"{key}.{name}" if key else str(name)


def _dense(key: str, value: Tensor) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise ValueError(f"checkpoint: {key} is a tensor without dense values: {value.layout}")
    return value.detach()
