"""Rows for tensor cores, padded to whole tiles; their products, and their gradients.

bfloat16 rows stay bfloat16 and are multiplied exactly. float16 rows are widened and multiply as
TF32, which holds each of their values; float32 rows multiply as three TF32 products, which keep
what float32 keeps.

Shape letters: N rows, P of them padded, D features, Q of them padded, S partial sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from lightning_rad.kernels.unit_rows import EPSILON

Products = Literal["bf16", "tf32", "tf32x3"]

PRODUCTS: dict[torch.dtype, Products] = {
    torch.bfloat16: "bf16",
    torch.float16: "tf32",
    torch.float32: "tf32x3",
}
"""How rows of a type are multiplied: exactly but for float32, which three TF32 products equal."""

RESIDENT = {"bf16": 256, "tf32": 128, "tf32x3": 32}
"""Most features of which a tile of rows, and the sum for its gradient, stay on chip."""

WORKSPACE_MIB = 256
"""Most memory that weights of a chunk of rows take on their way to the vendor's product."""

TILE = 128
"""Rows are padded to a multiple of it, the side of the largest tile."""

_EPSILON = tl.constexpr(EPSILON)


@dataclass(frozen=True, slots=True)
class Tiled:
    """Operand [P, Q] and [P] each: factor to the unit row, its square or 0, and the power of two.

    rows, features: how many of them are no padding. products: what kind of them tensor cores make.
    """

    operand_PQ: Tensor
    factor_P: Tensor
    square_P: Tensor
    back_P: Tensor
    rows: int
    features: int
    products: Products

    def gradient(self, sum_SPQ: Tensor, scale: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The gradient [N, D] in the rows as they came, and u . du, [N]; see `Rows.gradient`."""
        dz_ND = sum_SPQ.new_empty(self.rows, self.features, dtype=dtype)
        along_N = sum_SPQ.new_empty(self.rows)
        _finish[(self.rows,)](
            sum_SPQ,
            self.operand_PQ,
            self.square_P,
            self.back_P,
            scale,
            dz_ND,
            along_N,
            self.features,
            sum_SPQ.shape[0],
            sum_SPQ.stride(0),
            PADDED=self.operand_PQ.shape[1],
            WIDTH=triton.next_power_of_2(self.operand_PQ.shape[1]),
        )
        return dz_ND, along_N


def tiled(x_ND: Tensor) -> Tiled:
    """Rows ready for tiles. Raises ValueError for float64, which has no such products."""
    if x_ND.dtype not in PRODUCTS:
        raise ValueError(f"backend: 'fused' has no {x_ND.dtype} on a GPU; set 'reference'")
    rows, features = x_ND.shape
    low = x_ND.dtype == torch.bfloat16 and not INTERPRETED
    dtype = torch.bfloat16 if low else torch.float32
    padded = triton.cdiv(rows, TILE) * TILE
    operand_PQ = x_ND.new_empty(padded, padded_features(features), dtype=dtype)
    factor_P, square_P, back_P = x_ND.new_empty(3, padded, dtype=torch.float32)
    x_ND = x_ND.contiguous()
    _prepare[(padded,)](
        x_ND,
        operand_PQ,
        factor_P,
        square_P,
        back_P,
        rows,
        features,
        PADDED=operand_PQ.shape[1],
        WIDTH=triton.next_power_of_2(operand_PQ.shape[1]),
    )
    return Tiled(operand_PQ, factor_P, square_P, back_P, rows, features, PRODUCTS[x_ND.dtype])


def chunks(x: Tiled, y: Tiled, tile: int) -> Iterator[tuple[slice, Tensor]]:
    """Some rows of x, whole tiles of them, and a workspace [chunk, padded rows of y] for them."""
    rows, width = len(x.operand_PQ), len(y.operand_PQ)
    most = WORKSPACE_MIB * 2**20 // (width * x.operand_PQ.element_size())
    chunk = max(tile, min(rows, most // tile * tile))
    room = x.operand_PQ.new_empty(chunk, width)
    for first in range(0, rows, chunk):
        here = slice(first, min(first + chunk, rows))
        yield here, room[: here.stop - here.start]


def product(a: Tensor, b: Tensor) -> Tensor:
    """The vendor's, in float32, also of bfloat16 operands.

    Autocast, which may be on in backward, does not reach it; of float32 operands it obeys
    `torch.set_float32_matmul_precision`, whose default loses nothing.
    """
    with torch.autocast(a.device.type, enabled=False):
        return a @ b if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32)


def padded_features(features: int) -> int:
    """A power of two that a product takes, up to 256; above it a multiple of 64."""
    if features <= 256:
        return max(16, int(triton.next_power_of_2(features)))
    return -(-features // 64) * 64


@triton.jit
def dot(a, b, PRODUCTS: tl.constexpr):
    """A product of tiles, of the kind that their rows call for."""
    return tl.dot(a, b, input_precision="tf32x3" if PRODUCTS == "tf32x3" else "tf32")


@triton.jit
def at(rows, D: tl.constexpr, BD: tl.constexpr):
    """Where the first BD of D features of some rows lie."""
    return rows.to(tl.int64)[:, None] * D + tl.arange(0, BD)[None, :]


@triton.jit
def dots(x, y, rows, keys, D: tl.constexpr, BD: tl.constexpr, PRODUCTS: tl.constexpr):
    """Products of some rows of two operands, BD features at a time."""
    s = tl.zeros((rows.shape[0], keys.shape[0]), tl.float32)
    for d in range(0, D, BD):
        a, b = tl.load(x + at(rows, D, BD) + d), tl.load(y + at(keys, D, BD) + d)
        s += dot(a, tl.trans(b), PRODUCTS)
    return s


@triton.jit
def _prepare(x, operand, factor, square, back, N, D, PADDED: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    d = tl.arange(0, WIDTH)
    x_D = tl.load(x + row.to(tl.int64) * D + d, (d < D) & (row < N), 0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(x_D)), _EPSILON)
    # the exponent of the largest entry alone is a power of two, and so is 2^127 over it
    exponent = tl.minimum(largest.to(tl.int32, bitcast=True) & 0x7F800000, 0x7E800000)
    power = (0x7F000000 - exponent).to(tl.float32, bitcast=True)
    scaled_D = x_D * power
    norm = tl.sqrt(tl.sum(scaled_D * scaled_D))
    floor = _EPSILON * power
    f = 1 / tl.where(norm > floor, norm, floor)
    tl.store(operand + row.to(tl.int64) * PADDED + d, scaled_D, d < PADDED)
    tl.store(factor + row, f)
    tl.store(square + row, tl.where(norm >= floor, f * f, 0.0))
    tl.store(back + row, power)


@triton.jit
def _finish(
    sums,
    operand,
    square,
    back,
    scale,
    out,
    along,
    D,
    partials,
    stride,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, WIDTH)
    sum_D = tl.zeros((WIDTH,), tl.float32)
    part = sums + row * PADDED + d
    for _ in range(partials):
        sum_D += tl.load(part, d < PADDED, 0.0)
        part += stride
    operand_D = tl.load(operand + row * PADDED + d, d < PADDED, 0.0).to(tl.float32)
    dot = tl.sum(operand_D * sum_D)
    radial_D = operand_D * (dot * tl.load(square + row))
    gradient_D = (sum_D - radial_D) * (tl.load(back + row) * tl.load(scale))
    tl.store(out + row * D + d, gradient_D, d < D)
    tl.store(along + row, dot)


INTERPRETED: Any = isinstance(_prepare, InterpretedFunction)
"""Whether Triton runs on a CPU, one operation at a time; its bfloat16 products are wrong there."""
