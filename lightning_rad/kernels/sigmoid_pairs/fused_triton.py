"""Loss and gradients of pairs on tensor cores, a chunk of rows at a time.

A kernel makes the gradient of a tile of logits in float32 and leaves it, rounded to the type of
the rows, in a workspace of bounded size, from where the vendor's products take it to rows and
keys: three products an element, whatever the number of features. The loss leaves the tile as one
number. No atomics: the result is the same each time.

Shape letters: N rows, M keys, P padded rows, Q padded features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_rad.kernels.rows.fused_triton import Tiled, chunks, dots, product, tiled
from lightning_rad.kernels.sigmoid_pairs.reference import Side, Sums

_LOG2E = tl.constexpr(1.4426950408889634)


def meta(features: int, products: str, grouped: bool) -> dict[str, int]:
    """The shipped tile and how it is run; groups take the registers of half a tile.

    Found by compiling for sm_90, where nothing spills. Not tuned on a GPU yet.
    """
    low = products == "bf16"
    return {
        "BM": 128 if low else 64,
        "BN": 128 if low and not grouped else 64,
        "BD": min(features, 64),
        "num_warps": 8 if low else 4,
        "num_stages": 3,
    }


def one_pass(
    rows: Side, keys: Side, scale: Tensor, bias: Tensor, *, keys_too: bool, unit_keys: bool
) -> Sums:
    """See `fused_cpu.one_pass`. Raises ValueError for float64."""
    x, y = tiled(rows.x_ND), tiled(keys.x_ND.to(rows.x_ND.dtype))
    if unit_keys:  # tiles hold them times a power of two
        y = replace(y, factor_P=1 / y.back_P)
    ids = rows.ids_N is not None and keys.ids_N is not None
    groups = ids and rows.groups_N is not None and keys.groups_N is not None
    how = meta(x.operand_PQ.shape[1], x.products, groups) | {"IDS": ids, "GROUPS": groups}
    strided = rows.ids_N, keys.ids_N, rows.groups_N, keys.groups_N
    labels = tuple(None if label is None else label.contiguous() for label in strided)
    shape = len(x.operand_PQ) // how["BM"], len(y.operand_PQ) // how["BN"]
    tiles = x.factor_P.new_empty(3, *shape)
    sum_x = torch.empty_like(x.operand_PQ, dtype=torch.float32)
    sum_y = torch.zeros_like(y.operand_PQ if keys_too else y.operand_PQ[:0], dtype=torch.float32)
    for here, v in chunks(x, y, how["BM"]):
        _fill(v, here.start, tiles, x, y, labels, scale, bias, how)
        sum_x[here] = product(v, y.operand_PQ)
        if keys_too:
            sum_y += product(v.T, x.operand_PQ[here])
    to_row_ND, _ = x.gradient(sum_x[None], scale, scale.dtype)
    to_key_MD = sum_y[:, : y.features]
    if keys_too:
        to_key_MD, _ = y.gradient(sum_y[None], scale, scale.dtype)
    loss, to_scale, to_bias = (plane.sum() for plane in tiles)  # an operator's share no storage
    return Sums(loss, to_row_ND, to_key_MD, to_scale, to_bias)


def _fill(
    v: Tensor,
    first: int,
    tiles: Tensor,
    x: Tiled,
    y: Tiled,
    labels: tuple[Tensor | None, ...],
    scale: Tensor,
    bias: Tensor,
    how: dict[str, int],
) -> None:
    """v [chunk, padded keys]: the gradient in the logits times both factors, from row `first` on.

    tiles [3, row tiles, key tiles]: the sums of the loss, its gradient in 1/t, and in b.
    """
    _pairs[(v.shape[0] // how["BM"], v.shape[1] // how["BN"])](
        x.operand_PQ,
        y.operand_PQ,
        x.factor_P,
        y.factor_P,
        *labels,
        scale,
        bias,
        v,
        tiles[:, first // how["BM"] :],
        tiles.stride(0),
        first,
        x.rows,
        y.rows,
        v.shape[1],
        D=x.operand_PQ.shape[1],
        PRODUCTS=x.products,
        **how,
    )


@triton.jit
def _loss_and_gradient(signed):
    """softplus(z) and sigmoid(z) of z = -y x, each to the last digits wherever z is."""
    e = tl.exp2(-tl.abs(signed) * _LOG2E)
    # log(1 + e) / e on (0, 1]: the polynomial of degree 9 whose largest relative error is least
    # (5e-9), by least squares in float64, reweighted until all its peaks are equal (Lawson);
    # in float32, fused multiply-adds, log(1 + e) is within 1.5e-7 of its size
    p = e * -0.003244024235755205 + 0.019851457327604294
    p = e * p - 0.056959524750709534
    p = e * p + 0.10603653639554977
    p = e * p - 0.15305592119693756
    p = e * p + 0.1967593878507614
    p = e * p - 0.24954134225845337
    p = e * p + 0.3332996368408203
    p = e * p - 0.4999990165233612
    p = e * p + 1.0
    r = 1 / (1 + e)
    return tl.maximum(signed, 0.0) + e * p, tl.where(signed >= 0, r, e * r)


@triton.jit
def _pairs(
    x,
    y,
    x_factor,
    y_factor,
    x_ids,
    y_ids,
    x_groups,
    y_groups,
    scale,
    bias,
    out,
    tiles,
    plane,
    begin,
    N,
    M,
    width,
    D: tl.constexpr,
    IDS: tl.constexpr,
    GROUPS: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    local = tl.program_id(0) * BM + tl.arange(0, BM)
    rows, keys = begin + local, tl.program_id(1) * BN + tl.arange(0, BN)
    factor, key_factor = tl.load(x_factor + rows), tl.load(y_factor + keys)
    cosine = dots(x, y, rows, keys, D, BD, PRODUCTS) * factor[:, None] * key_factor[None, :]
    logit = cosine * tl.load(scale) + tl.load(bias)
    sign = tl.where((rows < N)[:, None] & (keys < M)[None, :], 1.0, 0.0)  # -y; 0 is no pair
    if IDS:
        x_id, y_id = tl.load(x_ids + rows, rows < N, 0), tl.load(y_ids + keys, keys < M, 0)
        same = x_id[:, None] == y_id[None, :]
        if GROUPS:
            x_group = tl.load(x_groups + rows, rows < N, 0)
            y_group = tl.load(y_groups + keys, keys < M, 0)
            left_out = (x_group[:, None] == y_group[None, :]) & (x_group != 0)[:, None]
            sign = tl.where(left_out & (same == 0), 0.0, sign)
        sign = tl.where(same, -sign, sign)
    loss, g = _loss_and_gradient(logit * sign)
    g = g * sign
    tile = tiles + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(tile, tl.sum(loss * tl.abs(sign)))
    tl.store(tile + plane, tl.sum(g * cosine))
    tl.store(tile + 2 * plane, tl.sum(g))
    v = g * factor[:, None] * key_factor[None, :]
    if PRODUCTS == "bf16":
        v = v.to(tl.bfloat16)
    tl.store(out + local.to(tl.int64)[:, None] * width + keys[None, :], v)
