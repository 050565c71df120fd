"""Sums and gradients over pairs, a tile of similarities at a time, on tensor cores.

The design follows the counts: at 128 features a tile's exponentials cost as much as its products,
so an element gets one exponential, three multiplications and a sum, and all that depends on whose
row it is (positives, the row itself, groups, ragged edges) is left to tiles that have such pairs.
Ids are replaced by the number of the first row that has them, which makes the range of ids in a
tile narrow, and two tiles whose ranges do not meet share no unit.

Forward, where the keys are the rows, makes the upper triangle of tiles and adds to columns, too,
atomically; with `torch.use_deterministic_algorithms` it makes the whole matrix instead. Backward
owns rows: no atomics. Up to 256 features a row's gradient stays in registers; above that, the
weights of a chunk of rows go to a workspace, from where the vendor's product takes them.

Shape letters: N rows, M keys, P padded rows, Q padded features, S strips of key tiles.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_rad.kernels.pairs import Pairs, Sums, Weights
from lightning_rad.kernels.rows.fused_triton import (
    RESIDENT,
    Products,
    Tiled,
    at,
    chunks,
    dot,
    dots,
    product,
    tiled,
)

PROGRAMS = 264
"""Enough programs to fill a GPU of 132 multiprocessors twice."""

PART = tl.constexpr(32)
"""Keys at a time in a tile where every pair is looked at: few, for the registers that takes."""

_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)


def meta(kernel: str, features: int, products: Products) -> dict[str, int]:
    """The shipped tile of a kernel ("sums", "gradient", "weights") and how it is run.

    "sums" needs square tiles. Found by compiling for sm_90: nothing spills in the loops that
    count. Not tuned on a GPU yet.
    """
    low = products == "bf16"
    resident = features <= RESIDENT[products] and kernel != "weights"
    chunk = features if resident else min(features, 64 if low else 32)
    side = 128 if low else 64
    wide = not low and chunk == 128
    return {
        "BM": side,
        "BN": side // 2 if kernel == "gradient" else side,
        "BD": chunk,
        "num_warps": 8 if low or (wide and kernel == "sums") else 4,
        "num_stages": 2 if wide or chunk > 128 else 3,
    }


def sums(pairs: Pairs, both: bool) -> tuple[Sums, Sums]:
    """See `fused_cpu.sums`."""
    x = tiled(pairs.x_ND)
    y = x if pairs.symmetric else tiled(pairs.y_MD)
    codes = _codes(pairs)
    add_to_keys = pairs.in_range and not torch.are_deterministic_algorithms_enabled()
    if pairs.symmetric or not both:
        rows = _sums_of(pairs, x, y, codes, mirrored=pairs.symmetric and add_to_keys)[0]
        return rows, rows
    if add_to_keys:
        return _sums_of(pairs, x, y, codes, mirrored=True)
    swapped = _sums_of(pairs, y, x, codes[::-1], mirrored=False)[0]
    return _sums_of(pairs, x, y, codes, mirrored=False)[0], swapped


def gradients(
    pairs: Pairs, of_rows: Weights, of_keys: Weights, both: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See `fused_cpu.gradients`."""
    x = tiled(pairs.x_ND)
    y = x if pairs.symmetric else tiled(pairs.y_MD)
    codes = _codes(pairs)
    sum_y = None
    if x.operand_PQ.shape[1] > RESIDENT[x.products]:
        sum_x, sum_y = _by_workspace(
            pairs, x, y, codes, of_rows, of_keys, both and not pairs.symmetric
        )
    else:
        sum_x = _by_rows(pairs, x, y, codes, of_rows, of_keys)
        if both and not pairs.symmetric:
            sum_y = _by_rows(pairs, y, x, codes[::-1], of_keys, of_rows)
    dx_ND, along_N = x.gradient(sum_x, pairs.scale, pairs.x_ND.dtype)
    dy_MD = dx_ND if sum_y is None else y.gradient(sum_y, pairs.scale, pairs.y_MD.dtype)[0]
    return dx_ND, dy_MD, along_N.sum()


Codes = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of the rows and of the keys: int32 codes of ids and of groups; a group that is unknown is
negative, another number on either side."""


def _codes(pairs: Pairs) -> Codes:
    ids = _first_of(pairs, pairs.x_ids_N, pairs.y_ids_M)
    if pairs.x_groups_N is None or pairs.y_groups_M is None:
        return (ids[0], ids[0]), (ids[1], ids[1])
    x_groups, y_groups = _first_of(pairs, pairs.x_groups_N, pairs.y_groups_M)
    x_groups = x_groups.where(pairs.x_groups_N != 0, -1)
    return (ids[0], x_groups), (ids[1], y_groups.where(pairs.y_groups_M != 0, -2))


def _first_of(pairs: Pairs, x_N: Tensor, y_M: Tensor) -> tuple[Tensor, Tensor]:
    """For each label the number of the first key, or row, that has it; nothing waits for a size."""
    every = y_M if pairs.own >= 0 else torch.cat([y_M, x_N])
    ordered, order = torch.sort(every, stable=True)
    first = order[torch.searchsorted(ordered, every)].to(torch.int32)
    own = slice(pairs.own, pairs.own + len(x_N)) if pairs.own >= 0 else slice(len(y_M), None)
    return first[own].contiguous(), first[: len(y_M)]


def _sides(pairs: Pairs, x: Tiled, y: Tiled, codes: Codes, how: dict[str, int]) -> tuple[Any, ...]:
    """What every kernel is told of rows and keys, and 1/t.

    Ranges, [4, tiles] each, are what the codes of a tile of rows, and of keys, lie between.
    """
    ranges = []
    for side, (ids, groups), block in ((x, codes[0], how["BM"]), (y, codes[1], how["BN"])):
        tiles = triton.cdiv(side.rows, block)
        out = ids.new_empty(4, tiles)
        _ranges[(tiles,)](ids, groups, out, side.rows, tiles, B=block)
        ranges.append(out)
    operands = x.operand_PQ, y.operand_PQ, x.factor_P, y.factor_P
    (x_ids, x_groups), (y_ids, y_groups) = codes
    return *operands, x_ids, y_ids, x_groups, y_groups, *ranges, pairs.scale


def _strips(row_tiles: int, key_tiles: int) -> tuple[int, int]:
    """How many strips the key tiles are cut into, and how many tiles make one."""
    tiles = triton.cdiv(key_tiles, min(key_tiles, triton.cdiv(PROGRAMS, row_tiles)))
    return triton.cdiv(key_tiles, tiles), tiles


def _sums_of(pairs: Pairs, x: Tiled, y: Tiled, codes: Codes, mirrored: bool) -> tuple[Sums, Sums]:
    how = meta("sums", x.operand_PQ.shape[1], x.products)
    row_tiles, key_tiles = triton.cdiv(x.rows, how["BM"]), triton.cdiv(y.rows, how["BN"])
    strips, tiles = _strips(row_tiles, key_tiles)
    if mirrored and pairs.symmetric:  # the triangle: short strips share its unequal rows out
        tiles = min(tiles, max(16, triton.cdiv(key_tiles, 64)))
        strips = triton.cdiv(key_tiles, tiles)
    by_row = x.factor_P.new_empty(3, strips, x.rows)
    by_key = x.factor_P.new_zeros(3, y.rows if mirrored else 0)
    _sums[(row_tiles, strips)](
        *_sides(pairs, x, y, codes, how),
        by_row,
        by_key,
        x.rows,
        y.rows,
        pairs.own,
        tiles,
        D=x.operand_PQ.shape[1],
        SELF=pairs.own >= 0,
        GROUPS=pairs.x_groups_N is not None,
        SYMMETRIC=mirrored and pairs.symmetric,
        MIRRORED=mirrored,
        IN_RANGE=pairs.in_range,
        PRODUCTS=x.products,
        **how,
    )
    total, attraction, positives = by_row
    attraction, positives = attraction.sum(0), positives.sum(0)
    if not pairs.in_range:
        rows = Sums(total.logsumexp(0), attraction, positives)
        return rows, rows
    total = total.sum(0)
    if mirrored and pairs.symmetric:
        total, attraction, positives = (
            a + b for a, b in zip((total, attraction, positives), by_key, strict=True)
        )
    rows = Sums(total.log() + pairs.scale, attraction, positives)
    if not mirrored or pairs.symmetric:
        return rows, rows
    return rows, Sums(by_key[0].log() + pairs.scale, by_key[1], by_key[2])


def _weights_of(pairs: Pairs, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Per row: what multiplies an exponential, the share of positives, and log2 of the sum."""
    lse2_N = weights.lse_N * _LOG2E.value
    if not pairs.in_range:
        return weights.weight_N, weights.share_N, lse2_N
    return weights.weight_N * (pairs.scale - weights.lse_N).exp(), weights.share_N, lse2_N


def _by_rows(
    pairs: Pairs, x: Tiled, y: Tiled, codes: Codes, of_rows: Weights, of_keys: Weights
) -> Tensor:
    """[S, P, Q]: strips of the sum of V over keys times operands, a row tile to a program."""
    how = meta("gradient", x.operand_PQ.shape[1], x.products)
    row_tiles = triton.cdiv(x.rows, how["BM"])
    strips, tiles = _strips(row_tiles, triton.cdiv(y.rows, how["BN"]))
    out_SPQ = x.factor_P.new_empty(strips, *x.operand_PQ.shape)
    _gradient[(row_tiles, strips)](
        *_sides(pairs, x, y, codes, how),
        *_weights_of(pairs, of_rows),
        *_weights_of(pairs, of_keys),
        out_SPQ,
        x.rows,
        y.rows,
        pairs.own,
        tiles,
        out_SPQ.stride(0),
        SELF=pairs.own >= 0,
        GROUPS=pairs.x_groups_N is not None,
        IN_RANGE=pairs.in_range,
        PRODUCTS=x.products,
        **how,
    )
    return out_SPQ


def _by_workspace(
    pairs: Pairs,
    x: Tiled,
    y: Tiled,
    codes: Codes,
    of_rows: Weights,
    of_keys: Weights,
    both: bool,
) -> tuple[Tensor, Tensor | None]:
    """[1, P, Q] sums of rows and of keys, by products of V, chunk after chunk of rows."""
    how = meta("weights", x.operand_PQ.shape[1], x.products)
    sum_x = torch.empty_like(x.operand_PQ, dtype=torch.float32)
    sum_y = torch.zeros_like(y.operand_PQ, dtype=torch.float32) if both else None
    sides = _sides(pairs, x, y, codes, how)
    weights = *_weights_of(pairs, of_rows), *_weights_of(pairs, of_keys)
    for rows, v in chunks(x, y, how["BM"]):
        _weights[(v.shape[0] // how["BM"], v.shape[1] // how["BN"])](
            *sides,
            *weights,
            v,
            rows.start,
            x.rows,
            y.rows,
            v.shape[1],
            pairs.own,
            D=x.operand_PQ.shape[1],
            SELF=pairs.own >= 0,
            GROUPS=pairs.x_groups_N is not None,
            IN_RANGE=pairs.in_range,
            PRODUCTS=x.products,
            **how,
        )
        sum_x[rows] = product(v, y.operand_PQ)
        if sum_y is not None:
            sum_y += product(v.T, x.operand_PQ[rows])
    return sum_x[None], None if sum_y is None else sum_y[None]


@triton.jit
def _ranges(ids, groups, out, N, tiles, B: tl.constexpr):
    """out [4, tiles]: the least and the greatest id and group of B rows, unknown groups aside."""
    at = tl.program_id(0) * B + tl.arange(0, B)
    out += tl.program_id(0)
    for codes in tl.static_range(2):
        code = tl.load((ids if codes == 0 else groups) + at, at < N, -3)
        tl.store(out + 2 * codes * tiles, tl.min(tl.where(code >= 0, code, 2147483647)))
        tl.store(out + (2 * codes + 1) * tiles, tl.max(code))


@triton.jit
def _dots(x, y, x_tile, rows, keys, D: tl.constexpr, BD: tl.constexpr, PRODUCTS: tl.constexpr):
    """Products of all features; the tile of rows is at hand where BD takes them all."""
    if BD == D:
        s = dot(x_tile, tl.trans(tl.load(y + at(keys, D, BD))), PRODUCTS)
    else:
        s = dots(x, y, rows, keys, D, BD, PRODUCTS)
    return s


@triton.jit
def _dots_aside(
    x, y, x_tile, rows, keys, D: tl.constexpr, BD: tl.constexpr, PRODUCTS: tl.constexpr
):
    """The same, keys by rows."""
    if BD == D:
        s = dot(tl.load(y + at(keys, D, BD)), tl.trans(x_tile), PRODUCTS)
    else:
        s = dots(y, x, keys, rows, D, BD, PRODUCTS)
    return s


@triton.jit
def _joined(total, peak, s):
    """Sums of exponentials over their running maximum, with those of some more logits."""
    higher = tl.maximum(peak, tl.max(s, 1))
    shift = tl.where(higher > -float("inf"), higher, 0.0)
    return total * tl.exp2(peak - shift) + tl.sum(tl.exp2(s - shift[:, None]), 1), higher


@triton.jit
def _special(
    row_tile,
    tile,
    x_ranges,
    y_ranges,
    N,
    M,
    own,
    SELF: tl.constexpr,
    GROUPS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Whether a tile of pairs is ragged, or may hold a positive, a row itself or a shared group."""
    x_tiles, y_tiles = tl.cdiv(N, BM), tl.cdiv(M, BN)
    special = ((row_tile + 1) * BM > N) | ((tile + 1) * BN > M)
    if SELF:
        begin = row_tile * BM + own
        special |= (begin < (tile + 1) * BN) & (begin + BM > tile * BN)
    for codes in tl.static_range(2 if GROUPS else 1):
        x_least = tl.load(x_ranges + 2 * codes * x_tiles + row_tile)
        x_most = tl.load(x_ranges + (2 * codes + 1) * x_tiles + row_tile)
        y_least = tl.load(y_ranges + 2 * codes * y_tiles + tile)
        y_most = tl.load(y_ranges + (2 * codes + 1) * y_tiles + tile)
        special |= (x_most >= y_least) & (x_least <= y_most)
    return special.to(tl.int32)


@triton.jit
def _relations(
    rows,
    keys,
    x_ids,
    y_ids,
    x_groups,
    y_groups,
    N,
    M,
    own,
    SELF: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Which pairs of a tile are admissible and which are positives."""
    mine, theirs = rows < N, keys < M
    admissible = mine[:, None] & theirs[None, :]
    if SELF:
        admissible = admissible & ((rows + own)[:, None] != keys[None, :])
    x_id, y_id = tl.load(x_ids + rows, mine, -1), tl.load(y_ids + keys, theirs, -1)
    same_id = x_id[:, None] == y_id[None, :]
    positive = admissible & same_id
    if GROUPS:
        x_group = tl.load(x_groups + rows, mine, -1)
        y_group = tl.load(y_groups + keys, theirs, -2)
        admissible = admissible & (same_id | (x_group[:, None] != y_group[None, :]))
    return admissible, positive


@triton.jit
def _sums(
    x,
    y,
    x_factor,
    y_factor,
    x_ids,
    y_ids,
    x_groups,
    y_groups,
    x_ranges,
    y_ranges,
    scale,
    by_row,
    by_key,
    N,
    M,
    own,
    tiles,
    D: tl.constexpr,
    SELF: tl.constexpr,
    GROUPS: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    MIRRORED: tl.constexpr,
    IN_RANGE: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """by_row [3, S, N]: exponentials (log-sum-exps out of range), logits of positives, positives.

    by_key [3, M]: the same of keys, added to, where MIRRORED.
    """
    row_tile, strip, strips = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    rows = row_tile * BM + tl.arange(0, BM)
    log2_scale = tl.load(scale) * _LOG2E
    x_log2 = tl.load(x_factor + rows) * log2_scale
    x_tile = tl.load(x + at(rows, D, BD))
    total = tl.zeros((BM,), tl.float32)
    peak = tl.full((BM,), -float("inf"), tl.float32)
    attraction = tl.zeros((BM,), tl.float32)
    positives = tl.zeros((BM,), tl.float32)
    first = strip * tiles
    last = tl.minimum(first + tiles, tl.cdiv(M, BN))
    if SYMMETRIC:
        first = tl.maximum(first, row_tile)
    for begin in range(first, last, 32):
        count = tl.minimum(last - begin, 32)
        marks = tl.zeros((), tl.int32)
        # where keys take their share, too, tiles lie on their side: both sums stay in a thread
        many = tl.zeros((BN, BM), tl.float32)
        for tile in range(begin, begin + count):
            keys = tile * BN + tl.arange(0, BN)
            special = _special(row_tile, tile, x_ranges, y_ranges, N, M, own, SELF, GROUPS, BM, BN)
            marks |= special << (tile - begin)
            key_factor = tl.load(y_factor + keys)
            if MIRRORED:
                s = _dots_aside(x, y, x_tile, rows, keys, D, BD, PRODUCTS)
                e = tl.exp2(s * key_factor[:, None] * x_log2[None, :] - log2_scale)
                many += e * (1 - special).to(tl.float32)
                usual = (keys < M) & (special == 0)
                tl.atomic_add(by_key + keys, tl.sum(e, 1), usual, sem="relaxed")
            else:
                s = _dots(x, y, x_tile, rows, keys, D, BD, PRODUCTS)
                s = s * x_log2[:, None] * key_factor[None, :]
                if IN_RANGE:
                    e = tl.exp2(s - log2_scale)
                    total += tl.sum(e, 1) * (1 - special).to(tl.float32)
                else:
                    total, peak = _joined(total, peak, tl.where(special == 0, s, -float("inf")))
        if MIRRORED:
            total += tl.sum(many, 0)
        for part in range(count * (BN // PART)):
            tile = begin + part // (BN // PART)
            if (marks >> (tile - begin)) & 1 != 0:
                keys = begin * BN + part * PART + tl.arange(0, PART)
                s = _dots(x, y, x_tile, rows, keys, D, BD, PRODUCTS)
                s = s * x_log2[:, None] * tl.load(y_factor + keys)[None, :]
                admissible, positive = _relations(
                    rows, keys, x_ids, y_ids, x_groups, y_groups, N, M, own, SELF, GROUPS
                )
                pull = tl.where(positive, s, 0.0)
                attraction += tl.sum(pull, 1)
                positives += tl.sum(positive.to(tl.float32), 1)
                # a tile on the diagonal has both sides of its pairs
                mirrored = (keys < M) & (not SYMMETRIC or tile > row_tile)
                if MIRRORED:
                    pulled = by_key + M + keys
                    tl.atomic_add(pulled, tl.sum(pull, 0) * _LN2, mirrored, sem="relaxed")
                    tl.atomic_add(
                        pulled + M, tl.sum(positive.to(tl.float32), 0), mirrored, sem="relaxed"
                    )
                if IN_RANGE:
                    e = tl.where(admissible, tl.exp2(s - log2_scale), 0.0)
                    total += tl.sum(e, 1)
                    if MIRRORED:
                        tl.atomic_add(by_key + keys, tl.sum(e, 0), mirrored, sem="relaxed")
                else:
                    total, peak = _joined(total, peak, tl.where(admissible, s, -float("inf")))
    if not IN_RANGE:
        lse = (peak + tl.log2(tl.where(total > 0, total, 1.0))) * _LN2
        total = tl.where(total > 0, lse, -float("inf"))
    out = by_row + strip.to(tl.int64) * N + rows
    plane = strips.to(tl.int64) * N
    tl.store(out, total, rows < N)
    tl.store(out + plane, attraction * _LN2, rows < N)
    tl.store(out + 2 * plane, positives, rows < N)


@triton.jit
def _exponentials(s, log2_scale, a, a_lse, b, b_lse, IN_RANGE: tl.constexpr):
    """w_i exp(s - lse_i) + v_j exp(s - lse_j), of logits times log2(e)."""
    if IN_RANGE:
        v = tl.exp2(s - log2_scale) * (a[:, None] + b[None, :])
    else:
        # at most 0 but for a pair that is no key, such as a row's own, whose power may be infinite
        as_row = tl.exp2(tl.minimum(s - a_lse[:, None], 0.0))
        as_key = tl.exp2(tl.minimum(s - b_lse[None, :], 0.0))
        v = as_row * a[:, None] + as_key * b[None, :]
    return v


@triton.jit
def _gradient(
    x,
    y,
    x_factor,
    y_factor,
    x_ids,
    y_ids,
    x_groups,
    y_groups,
    x_ranges,
    y_ranges,
    scale,
    a,
    a_share,
    a_lse,
    b,
    b_share,
    b_lse,
    out,
    N,
    M,
    own,
    tiles,
    stride,
    SELF: tl.constexpr,
    GROUPS: tl.constexpr,
    IN_RANGE: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """out [S, P, Q]: of each row the sum over a strip's keys of W, both factors and the operand."""
    row_tile = tl.program_id(0)
    rows = row_tile * BM + tl.arange(0, BM)
    mine = rows < N
    log2_scale = tl.load(scale) * _LOG2E
    factor = tl.load(x_factor + rows)
    x_log2 = factor * log2_scale
    a_row, a_log = tl.load(a + rows, mine, 0.0), tl.load(a_lse + rows, mine, 0.0)
    x_tile = tl.load(x + at(rows, BD, BD))
    total = tl.zeros((BM, BD), tl.float32)
    first = tl.program_id(1) * tiles
    last = tl.minimum(first + tiles, tl.cdiv(M, BN))
    for begin in range(first, last, 32):
        count = tl.minimum(last - begin, 32)
        marks = tl.zeros((), tl.int32)
        for tile in range(begin, begin + count):
            keys = tile * BN + tl.arange(0, BN)
            special = _special(row_tile, tile, x_ranges, y_ranges, N, M, own, SELF, GROUPS, BM, BN)
            marks |= special << (tile - begin)
            y_tile = tl.load(y + at(keys, BD, BD))
            key_factor = tl.load(y_factor + keys)
            s = dot(x_tile, tl.trans(y_tile), PRODUCTS)
            s = s * x_log2[:, None] * key_factor[None, :]
            b_key, b_log = tl.load(b + keys, keys < M, 0.0), tl.load(b_lse + keys, keys < M, 0.0)
            kept = key_factor * (1 - special).to(tl.float32)
            if IN_RANGE:
                v = tl.exp2(s - log2_scale)
                v *= a_row[:, None] * kept[None, :] + (b_key * kept)[None, :]
            else:
                v = _exponentials(s, log2_scale, a_row, a_log, b_key, b_log, IN_RANGE)
                v *= kept[None, :]
            if PRODUCTS == "bf16":
                v = v.to(tl.bfloat16)
            total += dot(v.to(y_tile.dtype), y_tile, PRODUCTS)
        for part in range(count * (BN // PART)):
            if (marks >> (part // (BN // PART))) & 1 != 0:
                keys = begin * BN + part * PART + tl.arange(0, PART)
                y_tile = tl.load(y + at(keys, BD, BD))
                key_factor = tl.load(y_factor + keys)
                s = dot(x_tile, tl.trans(y_tile), PRODUCTS)
                s = s * x_log2[:, None] * key_factor[None, :]
                b_key = tl.load(b + keys, keys < M, 0.0)
                b_log = tl.load(b_lse + keys, keys < M, 0.0)
                v = _exponentials(s, log2_scale, a_row, a_log, b_key, b_log, IN_RANGE)
                admissible, positive = _relations(
                    rows, keys, x_ids, y_ids, x_groups, y_groups, N, M, own, SELF, GROUPS
                )
                share = tl.load(a_share + rows, mine, 0.0)[:, None]
                share += tl.load(b_share + keys, keys < M, 0.0)[None, :]
                v = tl.where(admissible, v, 0.0) - tl.where(positive, share, 0.0)
                v = v * key_factor[None, :]
                if PRODUCTS == "bf16":
                    v = v.to(tl.bfloat16)
                total += dot(v.to(y_tile.dtype), y_tile, PRODUCTS)
    here = out + tl.program_id(1).to(tl.int64) * stride + at(rows, BD, BD)
    tl.store(here, total * factor[:, None])


@triton.jit
def _weights(
    x,
    y,
    x_factor,
    y_factor,
    x_ids,
    y_ids,
    x_groups,
    y_groups,
    x_ranges,
    y_ranges,
    scale,
    a,
    a_share,
    a_lse,
    b,
    b_share,
    b_lse,
    out,
    begin,
    N,
    M,
    width,
    own,
    D: tl.constexpr,
    SELF: tl.constexpr,
    GROUPS: tl.constexpr,
    IN_RANGE: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """out [chunk, padded keys]: W times both factors, of the rows from `begin` on."""
    local = tl.program_id(0) * BM + tl.arange(0, BM)
    tile = tl.program_id(1)
    rows, keys = begin + local, tile * BN + tl.arange(0, BN)
    mine, theirs = rows < N, keys < M
    log2_scale = tl.load(scale) * _LOG2E
    factor, key_factor = tl.load(x_factor + rows), tl.load(y_factor + keys)
    s = dots(x, y, rows, keys, D, BD, PRODUCTS)
    s = s * (factor * log2_scale)[:, None] * key_factor[None, :]
    a_row, a_log = tl.load(a + rows, mine, 0.0), tl.load(a_lse + rows, mine, 0.0)
    b_key, b_log = tl.load(b + keys, theirs, 0.0), tl.load(b_lse + keys, theirs, 0.0)
    v = _exponentials(s, log2_scale, a_row, a_log, b_key, b_log, IN_RANGE)
    # tiles of nothing but padding are multiplied by rows of zeros
    row_tile = tl.minimum(begin // BM + tl.program_id(0), tl.cdiv(N, BM) - 1)
    key_tile = tl.minimum(tile, tl.cdiv(M, BN) - 1)
    if _special(row_tile, key_tile, x_ranges, y_ranges, N, M, own, SELF, GROUPS, BM, BN) != 0:
        admissible, positive = _relations(
            rows, keys, x_ids, y_ids, x_groups, y_groups, N, M, own, SELF, GROUPS
        )
        share = tl.load(a_share + rows, mine, 0.0)[:, None]
        share += tl.load(b_share + keys, theirs, 0.0)[None, :]
        v = tl.where(admissible, v, 0.0) - tl.where(positive, share, 0.0)
    v = v * factor[:, None] * key_factor[None, :]
    if PRODUCTS == "bf16":
        v = v.to(tl.bfloat16)
    tl.store(out + local.to(tl.int64)[:, None] * width + keys[None, :], v)
