"""Random rows and what every dense way to a loss does with them.

Shape letters: N rows, M rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.ways import Way, Ways, leaf
from lightning_rad.kernels.choice import Backend

LOW = 2e-2
"""What two gradients may differ by where one of them comes from rows in 16 bits."""
T = 0.1
BIAS = -10.0
"""SigLIP's, at the start of training."""


def unit(x_ND: Tensor) -> Tensor:
    """Unit rows in the precision of the rows; the norm is taken in float32 at least."""
    wide_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    return normalize(wide_ND, dim=1).to(x_ND.dtype)


def logits(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    return (x_ND @ y_MD.T).to(torch.promote_types(x_ND.dtype, torch.float32)) / T


def random_rows(*shape: int, device: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return rows.to(device=device, dtype=dtype)


def ours_in(
    precisions: dict[str, tuple[torch.dtype, Backend]],
    loss: Callable[..., Tensor],
    rows: tuple[Tensor, ...],
) -> Ways:
    """One way for each name; looser where rows of 16 bits stand in for wider ones."""
    return {
        name: Way(
            lambda *leaves, backend=backend: loss(*leaves, backend=backend),
            tuple(leaf(x, dtype) for x in rows),
            LOW if torch.finfo(dtype).bits == 16 else 1e-3,
        )
        for name, (dtype, backend) in precisions.items()
    }


def own(dtype: torch.dtype) -> dict[str, tuple[torch.dtype, Backend]]:
    """Ours, as `auto` picks it; in bfloat16 too where the rows are wider; and the definition."""
    ways: dict[str, tuple[torch.dtype, Backend]] = {"ours": (dtype, "auto")}
    if dtype == torch.float32:
        ways["ours, bf16"] = (torch.bfloat16, "auto")
    return ways | {"definition": (dtype, "reference")}
