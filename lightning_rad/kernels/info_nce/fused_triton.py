"""One pass over the keys on tensor cores: loss and gradient of queries from a queue read once.

A few hundred queries do not fill a GPU by themselves, so the keys are cut into strips, too. Each
program has a tile of queries and a strip of keys and keeps, as attention does, the sum of
exponentials and their mixture of keys; a second launch joins the strips, adds the positive,
projects the gradient off the query and gives loss and gradients. Above 256 features a program keeps
the mixture of some features only, and the similarities are made once for each such part.

Shape letters: N rows, K keys, D features, P padded rows, Q padded features, S strips.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_rad.kernels.rows.fused_triton import RESIDENT, Products, dot, tiled

PROGRAMS = 264
"""Enough programs to fill a GPU of 132 multiprocessors twice."""

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)


def meta(features: int, products: Products) -> dict[str, int]:
    """The shipped tile of the pass and how it is run; see `pairs.fused_triton.meta`."""
    low = products == "bf16"
    kept = min(features, max(128, RESIDENT[products]))
    whole = features == kept and features <= RESIDENT[products]
    return {
        "BM": 64,
        "BN": 64 if low else 32,
        "BD": features if whole else min(features, 64 if low else 32),
        "BV": kept,
        "num_warps": 4 if kept <= 128 else 8,
        "num_stages": 3 if kept <= 128 else 2,
    }


def one_pass(
    query_ND: Tensor,
    positive_ND: Tensor,
    keys_KD: Tensor,
    scale: Tensor,
    offset: int,
    in_range: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `fused_cpu.one_pass`."""
    query = tiled(query_ND)
    features = query.operand_PQ.shape[1]
    how = meta(features, query.products)
    row_tiles = triton.cdiv(query.rows, how["BM"])
    key_tiles = triton.cdiv(len(keys_KD), how["BN"])
    parts = triton.cdiv(features, how["BV"])
    tiles = triton.cdiv(key_tiles, min(key_tiles, triton.cdiv(PROGRAMS, row_tiles * parts)))
    strips = triton.cdiv(key_tiles, tiles)
    mixture_SPQ = query.factor_P.new_empty(strips, *query.operand_PQ.shape)
    totals_2SP = query.factor_P.new_empty(2, strips, len(query.operand_PQ))
    positive_ND, keys_KD = positive_ND.contiguous(), keys_KD.contiguous()
    _pass[(row_tiles, strips, parts)](
        query.operand_PQ,
        keys_KD,
        query.factor_P,
        scale,
        mixture_SPQ,
        totals_2SP,
        len(keys_KD),
        query.features,
        offset,
        tiles,
        len(query.operand_PQ),
        D=features,
        SELF=offset >= 0,
        IN_RANGE=in_range,
        PRODUCTS=query.products,
        **how,
    )
    loss_N, gradient_ND = (
        torch.empty_like(query.factor_P[: query.rows]),
        torch.empty_like(query_ND, dtype=torch.float32, memory_format=torch.contiguous_format),
    )
    along_N = torch.empty_like(loss_N)
    _join[(query.rows,)](
        query.operand_PQ,
        positive_ND,
        query.factor_P,
        query.square_P,
        query.back_P,
        scale,
        mixture_SPQ,
        totals_2SP,
        loss_N,
        gradient_ND,
        along_N,
        query.features,
        strips,
        len(query.operand_PQ),
        PADDED=features,
        WIDTH=triton.next_power_of_2(features),
        STRIPS=triton.next_power_of_2(strips),
    )
    return loss_N, gradient_ND, along_N


@triton.jit
def _keys(keys, at, feature, K, F, like):
    """A tile of keys in the type of the queries' operand, 0 outside."""
    place = keys + at.to(tl.int64)[:, None] * F + feature[None, :]
    inside = (at < K)[:, None] & (feature < F)[None, :]
    return tl.load(place, inside, 0.0).to(like.dtype)


@triton.jit
def _pass(
    query,
    keys,
    factor,
    scale,
    mixture,
    totals,
    K,
    F,
    offset,
    tiles,
    P,
    D: tl.constexpr,
    SELF: tl.constexpr,
    IN_RANGE: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
):
    """mixture [S, P, Q]: sum_k E_k k of a strip; totals [2, S, P]: sum_k E_k, and log2 of shifts.

    F: features of a key; the operand has D.
    """
    strip, strips = tl.program_id(1), tl.num_programs(1)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    kept = tl.program_id(2) * BV + tl.arange(0, BV)
    log2_scale = tl.load(scale) * _LOG2E
    row_log2 = tl.load(factor + rows) * log2_scale
    place = query + rows.to(tl.int64)[:, None] * D + tl.arange(0, BD)[None, :]
    q = tl.load(place)
    total = tl.zeros((BM,), tl.float32)
    shift = tl.zeros((BM,), tl.float32) + log2_scale
    if not IN_RANGE:
        shift = tl.full((BM,), -float("inf"), tl.float32)
    mixed = tl.zeros((BM, BV), tl.float32)
    first = strip * tiles
    for tile in range(first, tl.minimum(first + tiles, tl.cdiv(K, BN))):
        at = tile * BN + tl.arange(0, BN)
        k = _keys(keys, at, kept, K, F, q)
        if BD == BV and D == BV:
            s = dot(q, tl.trans(k), PRODUCTS)
        else:
            s = tl.zeros((BM, BN), tl.float32)
            for d in range(0, D, BD):
                part = _keys(keys, at, d + tl.arange(0, BD), K, F, q)
                s += dot(tl.load(place + d), tl.trans(part), PRODUCTS)
        s = s * row_log2[:, None]
        outside = (at >= K)[None, :]
        if SELF:
            outside = outside | ((rows + offset)[:, None] == at[None, :])
        s = tl.where(outside, -float("inf"), s)
        if not IN_RANGE:
            higher = tl.maximum(shift, tl.max(s, 1))
            higher = tl.where(higher > -float("inf"), higher, -1e30)
            shrink = tl.exp2(shift - higher)
            total, mixed, shift = total * shrink, mixed * shrink[:, None], higher
        e = tl.exp2(s - shift[:, None])
        total += tl.sum(e, 1)
        if PRODUCTS == "bf16":
            e = e.to(tl.bfloat16)
        mixed += dot(e.to(q.dtype), k, PRODUCTS)
    here = mixture + (strip.to(tl.int64) * P + rows)[:, None] * D + kept[None, :]
    tl.store(here, mixed, (kept < D)[None, :])
    if tl.program_id(2) == 0:
        tl.store(totals + strip * P + rows, total)
        tl.store(totals + (strips + strip) * P + rows, shift)


@triton.jit
def _join(
    query,
    positive,
    factor,
    square,
    back,
    scale,
    mixture,
    totals,
    loss,
    gradient,
    along,
    F,
    strips,
    P,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIPS: tl.constexpr,
):
    """Loss and gradients of a row from its strips; logits and shifts in powers of two."""
    row = tl.program_id(0).to(tl.int64)
    d, s = tl.arange(0, WIDTH), tl.arange(0, STRIPS)
    f, one_over_t = tl.load(factor + row), tl.load(scale)
    query_D = tl.load(query + row * PADDED + d, d < PADDED, 0.0).to(tl.float32)
    positive_D = tl.load(positive + row * F + d, d < F, 0.0).to(tl.float32)
    attraction = tl.sum(query_D * positive_D) * f * one_over_t * _LOG2E
    shift_S = tl.load(totals + (strips + s) * P + row, s < strips, -float("inf"))
    top = tl.maximum(tl.max(shift_S), attraction)
    total = tl.sum(tl.load(totals + s * P + row, s < strips, 0.0) * tl.exp2(shift_S - top))
    mixed_D = tl.zeros((WIDTH,), tl.float32)
    for strip in range(strips):
        shrink = tl.exp2(tl.load(totals + (strips + strip) * P + row) - top)
        part = mixture + (row + strip * P) * PADDED + d
        mixed_D += shrink * tl.load(part, d < PADDED, 0.0)
    whole = total + tl.exp2(attraction - top)
    # E_p / l - 1 as -(sum_k E_k) / l: exact where the positive has nearly all of the mass
    du_D = (mixed_D - total * positive_D) / whole
    # sums of pairs have the factor of the row in them, see `Tiled.gradient`
    sum_D = du_D * f
    dot = tl.sum(query_D * sum_D)
    radial_D = query_D * (dot * tl.load(square + row))
    gradient_D = (sum_D - radial_D) * (tl.load(back + row) * one_over_t)
    tl.store(gradient + row * F + d, gradient_D, d < F)
    tl.store(along + row, dot)
    tl.store(loss + row, (tl.log2(whole) + top - attraction) * _LN2)
