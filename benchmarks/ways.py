"""Ways to one loss and its gradient, and whether they agree.

Shape letters: N pairs, M = 2 N rows, D features.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Way:
    """A loss of some leaves. tolerance: how far from the first way's its gradient may be."""

    loss: Callable[..., Tensor]
    leaves: tuple[Tensor, ...]
    tolerance: float = 1e-3

    def step(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and the gradient of the leaves, forward and backward."""
        value = self.loss(*self.leaves)
        return value.detach(), torch.autograd.grad(value, self.leaves)


Ways = dict[str, Way | str]
"""By name; in place of a way that cannot be gone here, the reason."""


def present(ways: Ways) -> dict[str, Way]:
    return {name: way for name, way in ways.items() if isinstance(way, Way)}


def reasons(ways: Ways) -> dict[str, str]:
    return {name: why for name, why in ways.items() if isinstance(why, str)}


def agreeing(ways: Ways, first: str) -> Ways:
    """Ways that fail, or are not near enough to the first, give way to the reason."""
    value, wanted = present(ways)[first].step()
    return {name: _judged(way, value, wanted) for name, way in ways.items()}


def _judged(way: Way | str, value: Tensor, wanted: tuple[Tensor, ...]) -> Way | str:
    if isinstance(way, str):
        return way
    try:
        other, got = way.step()
    except Exception as error:  # whatever it is, the others are still to be timed
        return f"fails: {told(error)}"
    apart = max(apart_of(g, w) for g, w in zip(got, wanted, strict=True))
    off = abs(float(other) - float(value)) / max(abs(float(value)), 1e-3)
    if apart < way.tolerance and off < way.tolerance:
        return way
    return f"disagrees: gradient {apart:.1e}, loss {off:.1e}"


def apart_of(got: Tensor, wanted: Tensor) -> float:
    """|got - wanted| over |wanted|."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def told(error: Exception) -> str:
    """An error in one short line."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:120]}"


def leaf(rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return rows.detach().to(dtype or rows.dtype).clone().requires_grad_()


def optional(module: str, name: str) -> Any:
    """The thing of that name, or in its place the reason why it is not there, a string."""
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # of Triton's, too, where a package looks for a card on import
        return f"not here: {told(error)}"


def compiled(loss: Callable[..., Tensor], *leaves: Tensor, backend: str = "inductor") -> Way | str:
    """The way, compiled and run once; or the reason why it was not."""
    torch.compiler.reset()
    way = Way(torch.compile(loss, fullgraph=True, dynamic=False, backend=backend), leaves)
    try:
        way.step()
    except Exception as error:  # a compiler's own; a missing one is among them
        return f"does not compile: {told(error)}"
    return way
