"""Learning rates as closed forms of the optimiser step, so that a resumed run continues exactly."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class _OfStep(LRScheduler):
    """A rate that is each group's own times a closed form of the optimiser step.

    Step it once an optimiser step. total_steps: optimiser steps of the run.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, *, last_epoch: int = -1) -> None:
        if total_steps < 1:
            raise ValueError(f"schedule.total_steps: {total_steps} is not at least 1")
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    @abstractmethod
    def factor(self, step: int) -> float:
        """What the rate is multiplied by at an optimiser step."""

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the present step."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The step alone: all else is the configured on resume, too."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a step, and set the rate that the present configuration gives it."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


class WarmupCosine(_OfStep):
    """Linear warm-up to each group's own rate, then half a cosine down to a floor.

    Step k (from 0) of the warm-up uses (k + 1) / warmup_steps of the rate (SimCLR's code uses
    k / warmup_steps and so wastes its first step); the rate is whole at step warmup_steps, and
    `floor` times it from step total_steps on.

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
        if not 0 <= warmup < 1:
            raise ValueError(f"schedule.warmup: {warmup} is not in [0, 1)")
        if not 0 <= floor <= 1:
            raise ValueError(f"schedule.floor: {floor} is not in [0, 1]")
        self.warmup_steps = int(warmup * total_steps)
        self.floor = floor
        super().__init__(optimizer, total_steps, last_epoch=last_epoch)

    def factor(self, step: int) -> float:
        """What the rate is multiplied by at an optimiser step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


class StepDecay(_OfStep):
    """Each group's own rate, multiplied by a factor at each of some points of the run.

    The schedule of MoCo v1 (epochs 120 and 160 of 200) and C2L (60, 80 and 100 of 120).

    total_steps: optimiser steps of the run. milestones: fractions of them, between 0 and 1.
    factor: what each milestone multiplies the rate by, above 0. Raises ValueError for values out
    of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        milestones: Sequence[float],
        factor: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if outside := [m for m in milestones if not 0 < m < 1]:
            raise ValueError(f"schedule.milestones: {outside} not between 0 and 1, fractions of it")
        if not factor > 0:
            raise ValueError(f"schedule.factor: {factor} is not above 0")
        self.milestones = tuple(round(m * total_steps) for m in milestones)
        self.decay = factor
        super().__init__(optimizer, total_steps, last_epoch=last_epoch)

    def factor(self, step: int) -> float:
        """What the rate is multiplied by at an optimiser step."""
        passed: int = sum(step >= m for m in self.milestones)
        return self.decay**passed
