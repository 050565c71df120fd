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
from lightning_rad.data.units import Unit, Units, units_of
from lightning_rad.manifest import Index, Manifest, load_index

log = logging.getLogger(__name__)

Member = Literal["report", "gaze"]

Weight = float | Literal["size"]
"""What a set is worth in a batch: a number, or, for all sets of a mixture, its number of units."""

_CALLED: Final[dict[Member, str]] = {"report": "a report", "gaze": "gaze"}


def build_parts(
    manifests: Mapping[str, Manifest],
    weights: Mapping[str, Weight],
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
    opened: dict[str, tuple[ShardSource, Units, str]] = {}
    for path, manifest in manifests.items():
        source = ShardSource(load_index(manifest, manifest.of_split(split)))
        member = (wanted or {}).get(path)
        counted = f"data.unit={unit}" + (f" with {_CALLED[member]}" if member else "")
        units = units_of(source.index, unit, _with(source.index, path, member) if member else None)
        opened[path] = source, units, counted
    sizes = {path: len(units) for path, (_, units, _) in opened.items()}
    shares = divide(global_batch, worth(weights, sizes), shuffle.groups)
    say_shares(shares, sizes, unit)
    parts: list[Part] = []
    units_before = images_before = 0
    for path, (source, units, counted) in opened.items():
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
        units_before += len(units)
        images_before += len(source.index.images)
    return parts, [source for source, _, _ in opened.values()]


def worth(weights: Mapping[str, Weight], sizes: Mapping[str, int]) -> dict[str, float]:
    """Weights as numbers: those given, or the sizes of the sets where all say `size`.

    Raises ValueError where some say so and others do not: a number of units and a share would be
    compared.
    """
    by_size = [path for path, weight in weights.items() if weight == "size"]
    if by_size and len(by_size) < len(weights):
        raise ValueError(
            f"data.manifest: '{by_size[0]}' has the weight size, and others have numbers; give "
            "size to all sets, or numbers to all"
        )
    return {path: float(sizes[path] if w == "size" else w) for path, w in weights.items()}


def say_shares(shares: Mapping[str, int], sizes: Mapping[str, int], unit: Unit) -> None:
    """Log what each of several sets is of a batch, and of all units; shares are whole turns."""
    batch, units = sum(shares.values()), sum(sizes.values())
    for path in shares if len(shares) > 1 else ():
        log.info(
            "data.manifest %s: %d of a batch of %d (%.1f %%), %d of %d units (%s; %.1f %%)",
            path,
            shares[path],
            batch,
            100 * shares[path] / batch,
            sizes[path],
            units,
            unit,
            100 * sizes[path] / max(units, 1),
        )


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
