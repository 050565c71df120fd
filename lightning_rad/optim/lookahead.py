"""Lookahead: every k steps of another optimiser, weights go back part of the way they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from lightning_rad.collectives import local_shards

SLOW: Final = "slow"
COUNT: Final = "since_slow"


class Lookahead(Optimizer):
    """Slow weights that follow the fast ones of an inner optimiser (arXiv:1907.08610, algorithm 1).

    After each k steps of the inner optimiser, slow = slow + alpha * (fast - slow) and fast = slow;
    slow starts as the weights did. alpha 1 is the inner optimiser alone. k 5 and alpha 0.5 are what
    the config of funnyzhou/REFERS has around SGD (the default of its class is 0.8). The paper may
    also reset or pull back the inner optimiser's momentum; kept as it is here, as there.

    inner: builds the optimiser from parameter groups. Groups and state are shared with it, so
    schedules, checkpoints and sharding treat both as one: the slow weights lie in the state of each
    parameter as "slow", the count of steps in each group as "since_slow". A resumed run so goes on
    at the step between two meetings where it was; the optimiser of funnyzhou/REFERS, whose state
    dict holds neither, does not. Sharded parameters have sharded slow weights, and nothing is
    exchanged. A step in which no parameter has a gradient changes nothing and does not count;
    a parameter joins with its first gradient.

    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        inner: Callable[[Iterable[dict[str, Any]]], Optimizer],
        k: int = 5,
        alpha: float = 0.5,
    ) -> None:
        if k < 1:
            raise ValueError(f"k: {k} is not at least 1")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha: {alpha} is not in (0, 1]")
        self._k, self._alpha = k, alpha
        self._inner = inner(params)  # type: ignore[arg-type] # groups, or what makes one group
        super().__init__(self._inner.param_groups, {**self._inner.defaults, COUNT: 0})
        self.param_groups, self.state = self._inner.param_groups, self._inner.state

    def __getstate__(self) -> dict[str, Any]:
        own = {"_inner": self._inner, "_k": self._k, "_alpha": self._alpha}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # saved by the inner optimiser alone
            group.setdefault(COUNT, 0)
        self._inner.__setstate__({"state": self.state, "param_groups": self.param_groups})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """A step of the inner optimiser, and each k-th of the slow weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        params = [p for group in self.param_groups for p in group["params"]]
        moving = [p for p in params if p.grad is not None]
        if not moving:
            return loss
        # optimisers take an empty state for their first step, so these are put in behind it
        starts = {p: p.detach().clone() for p in moving if SLOW not in self.state[p]}
        self._inner.step()
        for p, start in starts.items():
            self.state[p][SLOW] = start
        for group in self.param_groups:
            group[COUNT] = (group[COUNT] + 1) % self._k
        if self.param_groups[0][COUNT] == 0:
            self._meet([p for p in params if SLOW in self.state[p]])
        return loss

    def _meet(self, params: list[Tensor]) -> None:
        fast = local_shards(params)
        slow = local_shards(self.state[p][SLOW] for p in params)
        torch._foreach_lerp_(slow, fast, self._alpha)
        torch._foreach_copy_(fast, slow)
