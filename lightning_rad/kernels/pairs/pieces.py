"""Keys of all ranks, held at once or coming a piece at a time: sums join, gradients add up.

Shape letters: N rows of this rank, M keys of all ranks, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.pairs import Pairs, Sums, Weights, operator

Pieces = Iterable[tuple[int, Tensor]]
"""The number of a piece's first key and its keys: all M of them, in any order, none twice. Gone
through once forward and once backward; a piece is not looked at after the next was asked for."""

Keys = Tensor | Pieces
"""[M, D] at once, which is one piece, or in pieces of any number of rows, with the D and the dtype
of this rank's rows; a rank's own rows are never cut in two."""

Gather = Callable[[Tensor], Tensor]
"""Rows of this rank to those of all ranks, in rank order, without gradient."""

Part = tuple[slice, Pairs]
"""This rank's rows against a piece of the keys, and where that piece lies among all."""


def alone(x_N: Tensor) -> Tensor:
    """The gather of a process that has no others."""
    return x_N


def require_fused(backend: Backend) -> None:
    """Raise ValueError for a backend that has no form for keys in pieces."""
    if backend not in ("auto", "fused"):
        raise ValueError(
            f"backend: '{backend}' is not for keys that come in pieces (a ring); set 'auto' or "
            "'fused', which are the same then, or gather the keys"
        )


def parts(
    x_ND: Tensor,
    keys_MD: Keys,
    ids_M: Tensor,
    groups_M: Tensor | None,
    *,
    offset: int,
    among: bool,
    scale: Tensor,
    in_range: bool,
) -> Iterator[Part]:
    """Rows, which ids and groups number from `offset`, against each piece of the keys.

    among: whether the rows are keys of each other, and so of themselves. Raises ValueError for
    pieces that do not fit the rows, or do not make up the keys.
    """
    own = slice(offset, offset + len(x_ND))
    mine = ids_M[own], None if groups_M is None else groups_M[own]
    met = []
    for first, y_MD in [(0, keys_MD)] if isinstance(keys_MD, Tensor) else keys_MD:
        here = slice(first, first + len(y_MD))
        met.append((here.start, here.stop))
        _require_fit(x_ND, y_MD, own, here)
        if here.stop > len(ids_M):
            break  # refused below
        place = offset - first if among and here.start <= offset < here.stop else -1
        theirs = ids_M[here], None if groups_M is None else groups_M[here]
        yield (
            here,
            Pairs(x_ND, y_MD, mine[0], theirs[0], mine[1], theirs[1], place, scale, in_range),
        )
    _require_all(met, len(ids_M))


def sums(of_parts: Iterable[Part]) -> Sums:
    """Of the rows, over all keys."""
    every = [torch.stack(operator.sums(pairs)[0]) for _, pairs in of_parts]
    if len(every) == 1:
        return Sums(*every[0])
    # one joint log-sum-exp rounds once, as pairwise ones would not
    lse_PN, attraction_PN, positives_PN = torch.stack(every, dim=1)
    return Sums(lse_PN.logsumexp(0), attraction_PN.sum(0), positives_PN.sum(0))


def gradients(
    of_parts: Iterable[Part], of_rows: Weights, of_keys: Weights
) -> tuple[Tensor, Tensor]:
    """In the rows [N, D], in their dtype, and in 1/t, the rows' share; of_keys is of all M keys.

    Every piece's is rounded to the dtype of the rows, their sum is not before it is whole.
    """
    every = (
        operator.gradients(pairs, of_rows, Weights(*(weight_M[here] for weight_M in of_keys)))
        for here, pairs in of_parts
    )
    first_ND, _, to_scale = next(every)
    total_ND = first_ND.to(to_scale.dtype)
    for part_ND, _, part in every:
        total_ND += part_ND
        to_scale = to_scale + part
    return total_ND.to(first_ND.dtype), to_scale


def _require_fit(x_ND: Tensor, y_MD: Tensor, own: slice, here: slice) -> None:
    if y_MD.dtype != x_ND.dtype or y_MD.shape[1:] != x_ND.shape[1:]:
        raise ValueError(
            f"keys: a piece {tuple(y_MD.shape)} of {y_MD.dtype} for rows {tuple(x_ND.shape)} of "
            f"{x_ND.dtype}"
        )
    apart = here.stop <= own.start or own.stop <= here.start
    if not (apart or (here.start <= own.start and own.stop <= here.stop)):
        raise ValueError(f"keys: piece {here.start} to {here.stop} cuts this rank's rows in two")


def _require_all(met: list[tuple[int, int]], count: int) -> None:
    starts, stops = [start for start, _ in sorted(met)], [stop for _, stop in sorted(met)]
    if [*starts, count] != [0, *stops]:
        raise ValueError(f"keys: pieces {met} do not make up {count} keys")
