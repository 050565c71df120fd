"""LARS: momentum SGD whose step on each tensor is in proportion to that tensor's norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from lightning_rad.collectives import local_shards, whole_norms

Velocity = Literal["scaled", "adapted"]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888), in the forms that published code has.

    With g the gradient plus weight_decay * w, and the trust ratio r = trust * |w| / |g|, or 1
    where either norm is 0, `velocity` says what the velocity v gathers:

    - "scaled": v = momentum * v + lr * r * g; w = w - v. The learning rate enters the velocity,
      so a falling schedule brakes through it (`lars_optimizer.py` of google-research/simclr).
    - "adapted": v = momentum * v + r * g; w = w - lr * v (`moco/optimizer.py` of moco-v3,
      `scale_by_lars` of BYOL, main.py of barlowtwins). Equal to the first at a constant rate.

    A parameter group with `adapt: False` takes r = 1; `decay_groups` sets it, with no weight
    decay, for biases and norms, which SimCLR excludes from both. Norms are of whole tensors in the
    tensor's own precision; nothing waits for the device. Gradients are left as they are. Where
    parameters are sharded each rank moves its part, and one all-reduce of two numbers a parameter
    makes the norms.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 1e-3,
        velocity: Velocity = "scaled",
        nesterov: bool = False,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr: {lr} is below 0")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: {momentum} is not in [0, 1)")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay: {weight_decay} is below 0")
        if not trust > 0:
            raise ValueError(f"trust: {trust} is not above 0")
        if velocity not in get_args(Velocity):
            raise ValueError(f"velocity: '{velocity}' is not one of {list(get_args(Velocity))}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "velocity": velocity,
            "nesterov": nesterov,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                _update(params, self._velocities(params), group)
        return loss

    def _velocities(self, params: list[Tensor]) -> list[Tensor]:
        for p in params:
            if "velocity" not in self.state[p]:
                self.state[p]["velocity"] = torch.zeros_like(p)
        return [self.state[p]["velocity"] for p in params]


def _update(params: list[Tensor], velocities: list[Tensor], group: dict[str, Any]) -> None:
    """One step on one group, in place, a few calls for all its tensors."""
    momentum, decay = group["momentum"], group["weight_decay"]
    enters, leaves = (group["lr"], 1.0) if group["velocity"] == "scaled" else (1.0, group["lr"])
    like = params
    grads = local_shards(cast(Tensor, p.grad) for p in params)
    params, velocities = local_shards(params), local_shards(velocities)
    if decay:
        grads = list(torch._foreach_add(grads, params, alpha=decay))
    trust = group["trust"] if group["adapt"] else None
    factors = _factors(grads, params, trust, enters, like)
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_addcmul_(velocities, grads, factors)
    if group["nesterov"]:
        torch._foreach_addcmul_(params, grads, factors, value=-leaves)
        leaves *= momentum
    torch._foreach_sub_(params, velocities, alpha=leaves)


def _factors(
    grads: list[Tensor], params: list[Tensor], trust: float | None, rate: float, like: list[Tensor]
) -> list[Tensor]:
    """Rate times the trust ratio of each parameter, computed on the device at once."""
    if trust is None:
        return [p.new_full((), rate) for p in params]
    w, g = whole_norms([*params, *grads], like * 2).chunk(2)
    return list((torch.where((w > 0) & (g > 0), trust * w / g, 1.0) * rate).unbind())
