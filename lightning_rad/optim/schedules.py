"""Learning rates as closed forms of the optimiser step, so that a resumed run continues exactly."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up to each group's own rate, then half a cosine down to a floor.

    Step it once an optimiser step. Step k (from 0) of the warm-up uses (k + 1) / warmup_steps of
    the rate (SimCLR's code uses k / warmup_steps and so wastes its first step); the rate is whole
    at step warmup_steps, and `floor` times it from step total_steps on.

    total_steps: optimiser steps of the run. warmup: share of them, rounded down, at least 0 and
    below 1. floor: fraction of the rate, 0 to 1. Raises ValueError for values out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup: float = 0.1,
        floor: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if total_steps < 1:
            raise ValueError(f"schedule.total_steps: {total_steps} is not at least 1")
        if not 0 <= warmup < 1:
            raise ValueError(f"schedule.warmup: {warmup} is not in [0, 1)")
        if not 0 <= floor <= 1:
            raise ValueError(f"schedule.floor: {floor} is not in [0, 1]")
        self.warmup_steps = int(warmup * total_steps)
        self.total_steps = total_steps
        self.floor = floor
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The step alone: rates, total and warm-up are the configured ones on resume, too."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a step, and set the rate that the present configuration gives it."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def factor(self, step: int) -> float:
        """What the rate is multiplied by at an optimiser step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the present step."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]
