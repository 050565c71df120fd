"""Features on one scale: distance from the mean in standard deviations, both kept while training.

Shape letters: N rows of this rank, M rows of all ranks, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningZScore(nn.Module):
    """Rows [N, F] less the mean of all rows so far, by their standard deviation.

    Count, mean and spread, the sum of squared distances from the mean, are merged batch by batch
    (Chan, Golub and LeVeque 1983, the pairwise update), feature by feature and without NaN, in
    float64 buffers [F]; equal rows on all ranks leave equal numbers to the last bit. The deviation
    is that of the population, sqrt(spread / count). Count is bounded by `memory` after a batch was
    merged, and spread with it: up to there statistics are of all rows, from there on each batch
    takes the place of a share of the older ones, so that a change of the features is followed. A
    value that is NaN, or of a feature that has not varied yet, becomes 0; others are held within
    +- `limit`. No gradient.

    Raises ValueError for a memory below 2 and a limit that is not above 0.
    """

    def __init__(self, features: int, *, memory: int = 100_000, limit: float = 5.0) -> None:
        super().__init__()
        if memory < 2:
            raise ValueError(f"z_score.memory must be at least 2, got {memory}")
        if not limit > 0:
            raise ValueError(f"z_score.limit must be above 0, got {limit}")
        self.memory, self.limit = memory, limit
        for name in ("count", "mean", "spread"):
            self.register_buffer(name, torch.zeros(features, dtype=torch.float64))
        self.count: Tensor
        self.mean: Tensor
        self.spread: Tensor

    @torch.no_grad()
    def update(self, rows_MF: Tensor) -> None:
        """Take rows into the statistics: those of all ranks, in the same order on each."""
        rows_MF = rows_MF.to(self.mean.dtype)
        known_MF = ~rows_MF.isnan()
        count_F = known_MF.sum(0).to(self.mean.dtype)
        some_F = count_F.clamp(min=1)
        mean_F = rows_MF.nan_to_num(nan=0.0).sum(0) / some_F
        apart_MF = (rows_MF - mean_F).where(known_MF, torch.zeros_like(rows_MF))
        spread_F = apart_MF.square().sum(0)

        whole_F = self.count + count_F
        share_F = count_F / whole_F.clamp(min=1)
        moved_F = (mean_F - self.mean).where(count_F > 0, torch.zeros_like(mean_F))
        self.spread += spread_F + moved_F.square() * self.count * share_F
        self.mean += moved_F * share_F
        kept_F = whole_F.clamp(max=self.memory)
        self.spread *= kept_F / whole_F.clamp(min=1)
        self.count.copy_(kept_F)

    @torch.no_grad()
    def forward(self, rows_NF: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The rows on this scale, [N, F] of a dtype; zeros before any row was taken in."""
        deviation_F = (self.spread / self.count.clamp(min=1)).sqrt()
        # what rounding leaves of equal numbers is no deviation
        varies_F = deviation_F > 1e-12 * self.mean.abs()
        apart_NF = (rows_NF.to(self.mean.dtype) - self.mean) / deviation_F.where(
            varies_F, torch.ones_like(deviation_F)
        )
        usable_NF = varies_F & ~apart_NF.isnan()
        scored_NF = apart_NF.where(usable_NF, torch.zeros_like(apart_NF))
        return scored_NF.clamp(-self.limit, self.limit).to(dtype)
