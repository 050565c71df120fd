"""Rows as the blocked forms multiply them, and the way back from unit rows to rows as they came.

Cosines need rows of length 1. Rounding unit rows to bfloat16 again would cost more than anything
else does, so low-precision rows are multiplied as they are, scaled by a power of two, which is
exact, and the norms go into the block of products as factors.

Shape letters: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rad.kernels.unit_rows import EPSILON


@dataclass(frozen=True, slots=True)
class Rows:
    """u = factor * operand are the unit rows; factor is None where the operand is u.

    With sum_i = sum_j V_ij operand_j the gradient in the rows as they came is
    back (sum - square (operand.sum) operand).
    """

    operand_ND: Tensor
    factor_N: Tensor | None
    square_N: Tensor
    back_N: Tensor

    def part(self, rows: slice) -> Rows:
        """Some of the rows."""
        factor_N = None if self.factor_N is None else self.factor_N[rows]
        return Rows(self.operand_ND[rows], factor_N, self.square_N[rows], self.back_N[rows])

    def pushed(self, du_ND: Tensor) -> Tensor:
        """The sum that `gradient` takes, of a gradient in the unit rows."""
        return du_ND if self.factor_N is None else du_ND * self.factor_N[:, None]

    def gradient(self, sum_ND: Tensor, scale: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The gradient [N, D] in the rows as they came, and u . du, [N], for logits over 1."""
        along_N = (self.operand_ND * sum_ND).sum(1)
        radial_N1 = (self.square_N * along_N)[:, None]
        across_ND = torch.addcmul(sum_ND, self.operand_ND, radial_N1, value=-1)
        return across_ND.mul_((self.back_N * scale)[:, None]).to(dtype), along_N


def prepared(x_ND: Tensor) -> Rows:
    """Rows of any floating type for products in float32, or in float64 where they are float64."""
    exact = x_ND.dtype == torch.bfloat16
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    largest_N = torch.maximum(x_ND.amax(1), -x_ND.amin(1)).clamp_min(EPSILON)
    power_N = torch.ldexp(torch.ones_like(largest_N), 1 - torch.frexp(largest_N).exponent)
    scaled_ND = x_ND * power_N[:, None]
    norm_N = torch.linalg.vector_norm(scaled_ND, dim=1)
    floor_N = EPSILON * power_N
    factor_N = 1 / torch.maximum(norm_N, floor_N)
    long_N = norm_N >= floor_N  # shorter rows are divided by EPSILON: no projection
    if exact:
        return Rows(scaled_ND, factor_N, factor_N.square() * long_N, power_N)
    unit_ND = scaled_ND.mul_(factor_N[:, None])
    return Rows(unit_ND, None, long_N.to(unit_ND.dtype), power_N * factor_N)


@contextmanager
def products_of(x_ND: Tensor) -> Iterator[None]:
    """Products of float32 operands on a CPU that hold bfloat16 values: made in bfloat16, by AMX.

    The switch is one of the whole process: other float32 products of the time are rounded, too.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if x_ND.dtype == torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
