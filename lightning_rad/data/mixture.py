"""From manifests and weights to the parts of a stream; refuses what cannot be divided."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lightning_rad.data.order import Order
from lightning_rad.data.settings import Shuffle
from lightning_rad.data.source import ShardSource
from lightning_rad.data.stream import Part
from lightning_rad.data.units import Unit, units_of
from lightning_rad.manifest import Index, Manifest, load_index

log = logging.getLogger(__name__)

Member = Literal["report", "gaze"]

_CALLED: Final[dict[Member, str]] = {"report": "a report", "gaze": "gaze"}


def build_parts(
    manifests: Mapping[str, Manifest],
    weights: Mapping[str, float],
    *,
    split: str,
    unit: Unit,
    global_batch: int,
    shuffle: Shuffle,
    wanted: Mapping[str, Member] | None = None,
) -> tuple[list[Part], list[ShardSource]]:
    """One part a manifest, with the sources of its shards; keys are the paths as configured.

    wanted: by path, what studies must have to take part; how many are left out is logged.
    """
    shares = divide(global_batch, weights, shuffle.groups)
    parts: list[Part] = []
    sources: list[ShardSource] = []
    units_before = images_before = 0
    for path, manifest in manifests.items():
        source = ShardSource(load_index(manifest, manifest.of_split(split)))
        member = (wanted or {}).get(path)
        counted = f"data.unit={unit}" + (f" with {_CALLED[member]}" if member else "")
        units = units_of(source.index, unit, _with(source.index, path, member) if member else None)
        try:
            order = Order(
                units.shard,
                seed=shuffle.seed,
                groups=shuffle.groups,
                window=shuffle.window,
                separation=shuffle.separation,
            )
        except ValueError as error:
            raise ValueError(f"data.manifest {path}, {counted}: {error}") from None
        if shares[path] > order.separation:
            raise ValueError(
                f"data.global_batch={global_batch} takes {shares[path]} units of {path}, whose "
                f"{len(units)} units ({counted}) repeat after {order.separation} (a third "
                "of them, or data.shuffle.separation): a batch would hold a unit twice; lower "
                "data.global_batch"
            )
        parts.append(Part(order, units, shares[path], units_before, images_before))
        sources.append(source)
        units_before += len(units)
        images_before += len(source.index.images)
    return parts, sources


def _with(index: Index, path: str, member: Member) -> npt.NDArray[np.bool_]:
    """[S]: the studies that have a member; says how many there are without."""
    having: npt.NDArray[np.bool_] = index.studies[f"{member}_size"] > 0
    if not having.all():
        log.warning(
            "data.manifest %s: %d of %d studies have no %s and are left out",
            path,
            np.count_nonzero(~having),
            len(having),
            member,
        )
    return having


def divide(global_batch: int, weights: Mapping[str, float], groups: int) -> dict[str, int]:
    """The share of each set in a global batch: whole turns of `groups`.

    By largest remainder; a set whose weight is worth less than a turn gets one all the same.
    """
    if global_batch < groups or global_batch % groups:
        near = max(1, round(global_batch / groups)) * groups
        raise ValueError(
            f"data.global_batch={global_batch} is not a multiple of data.shuffle.groups={groups}; "
            f"the nearest that is: {near}"
        )
    if not weights or min(weights.values()) <= 0:
        raise ValueError(f"the weights of data.manifest must be positive, got {dict(weights)}")
    rounds = global_batch // groups
    if len(weights) > rounds:
        raise ValueError(
            f"data.global_batch={global_batch} cannot hold {len(weights)} sets in shares of "
            f"data.shuffle.groups={groups}; at least {len(weights) * groups} is needed"
        )
    weight = np.array(list(weights.values()), np.float64)
    turns = np.ones(len(weight), np.int64)
    rest = np.arange(len(weight))  # sets whose due is a whole turn or more
    while True:
        left = rounds - (len(weight) - len(rest))
        exact = weight[rest] / weight[rest].sum() * left
        if (exact >= 1).all():
            break
        rest = rest[exact >= 1]
    turns[rest] = np.floor(exact)
    due = np.argsort(np.floor(exact) - exact, kind="stable")
    turns[rest[due[: rounds - turns.sum()]]] += 1
    return {path: int(t) * groups for path, t in zip(weights, turns, strict=True)}


def check_ranks(ranks: int, groups: int) -> None:
    """Raise ValueError, with the nearest that do, unless the number of ranks divides the groups."""
    if groups % ranks:
        fitting = [r for r in range(1, groups + 1) if groups % r == 0]
        near = [r for r in fitting if r < ranks][-1:] + [r for r in fitting if r > ranks][:1]
        raise ValueError(
            f"{ranks} ranks do not divide data.shuffle.groups={groups}; "
            f"the nearest numbers that do: {', '.join(map(str, near))}"
        )
