"""Radiomic features as distances from their mean so far, in standard deviations, number by number.

The source leaves its scaling commented out; mean and standard deviation of the population of all
rows so far are what `RunningZScore` says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class RunningScale:
    """count, mean and sum of squared deviations of each feature, without NaN.

    memory: rows that the statistics count as, at most. Rows of a batch enter like any others; the
    count of all of them is bounded afterwards, with their standard deviation as it is.
    """

    def __init__(
        self,
        count: Sequence[float],
        mean: Sequence[float],
        squares: Sequence[float],
        *,
        memory: int = 100_000,
        limit: float = 5.0,
    ) -> None:
        self._count, self._mean, self._squares = list(count), list(mean), list(squares)
        self._memory, self._limit = memory, limit

    def take(self, rows: list[list[float]]) -> None:
        """Rows [B][F] of all ranks."""
        for f in range(len(self._count)):
            new = [row[f] for row in rows if not math.isnan(row[f])]
            if not new:
                continue
            count = self._count[f] + len(new)
            mean = (self._count[f] * self._mean[f] + math.fsum(new)) / count
            squares = self._squares[f] + self._count[f] * (self._mean[f] - mean) ** 2
            squares += math.fsum((x - mean) ** 2 for x in new)
            kept = min(count, self._memory)
            self._count[f], self._mean[f] = kept, mean
            self._squares[f] = squares * kept / count

    def scaled(self, row: list[float]) -> list[float]:
        """A row [F]; 0 where there is no number, and for a feature that has not varied."""
        made = []
        for f, x in enumerate(row):
            if math.isnan(x) or self._squares[f] == 0:
                made.append(0.0)
                continue
            z = (x - self._mean[f]) / math.sqrt(self._squares[f] / self._count[f])
            made.append(max(-self._limit, min(self._limit, z)))
        return made

    def numbers(self) -> dict[str, Tensor]:
        made = {"count": self._count, "mean": self._mean, "spread": self._squares}
        return {name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in made.items()}
