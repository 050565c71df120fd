"""Gradient descent as funnyzhou/REFERS drives it, written out for parameters by name.

pretrain_refers.py (clip, then step), torch.optim.SGD (momentum without dampening), and
Pre-train/refers/optim/lookahead.py, which is arXiv:1907.08610, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Descent:
    """Clipping by the norm of all gradients, momentum, and Lookahead around both.

    parameters: leaves by name, changed in place; those that ask for no gradient are left alone.
    rates: the learning rate of each of them. clip: largest norm, None for no bound. lookahead: k
    and alpha, None for none; `slow` are its slow weights, which start as the weights.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        rates: Mapping[str, float],
        *,
        momentum: float = 0.0,
        clip: float | None = None,
        lookahead: tuple[int, float] | None = None,
    ) -> None:
        self._parameters = {n: p for n, p in parameters.items() if p.requires_grad}
        self._rates, self._momentum, self._clip = rates, momentum, clip
        self._k, self._alpha = lookahead or (0, 1.0)
        self._velocity: dict[str, Tensor] = {}
        self._fast_steps = 0
        self.slow = {n: p.detach().clone() for n, p in self._parameters.items()} if self._k else {}

    def step(self, loss: Tensor, factor: float = 1.0) -> None:
        """factor: what a schedule multiplies every learning rate with."""
        names, leaves = list(self._parameters), list(self._parameters.values())
        gradients = dict(zip(names, torch.autograd.grad(loss, leaves), strict=True))
        shrink = 1.0
        if self._clip is not None:
            squares = [float((gradient**2).sum()) for gradient in gradients.values()]
            shrink = min(1.0, self._clip / (math.sqrt(sum(squares)) + 1e-6))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                moved = gradients[name] * shrink
                if name in self._velocity:
                    moved = self._momentum * self._velocity[name] + moved
                self._velocity[name] = moved
                parameter.copy_(parameter - factor * self._rates[name] * moved)
            self._fast_steps += 1
            if self._k and self._fast_steps % self._k == 0:
                for name, parameter in self._parameters.items():
                    fast, slow = parameter.clone(), self.slow[name]
                    self.slow[name] = slow + self._alpha * (fast - slow)
                    parameter.copy_(self.slow[name])
