"""What ranks exchange a step: collectives and bytes, counted where torch.distributed is called.

The table of docs/numerics.md, "Ranks", says the same in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from lightning_rad.collectives import exchange_rows, gather_detached, gather_rows, rank, world_size
from lightning_rad.collectives import gather as gathers
from lightning_rad.losses.clip import clip
from lightning_rad.losses.sigmoid_pairs import sigmoid_pairs
from tests.gloo import run_on_ranks
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import random_batches, share
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.test_barlow_twins import barlow_twins
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_micle import micle, simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_vicreg import vicreg

UNITS, VIEWS, FEATURES, SIDE = 4, 2, 8, 16
"""Of a rank; so wide are embeddings, and so many pixels a side have the images."""

Log = list[tuple[str, int]]
"""Collectives and what a rank receives in each from any one other rank, in bytes."""


@contextmanager
def logged(log: Log) -> Iterator[None]:
    """Every call that is made meanwhile."""

    def watch(name: str, call: Callable[..., Any], received: Callable[..., int]) -> Any:
        def watched(*args: Any, **how: Any) -> Any:
            log.append((name, received(*args)))
            return call(*args, **how)

        return watched

    watched = {
        (gathers, "_all_gather"): ("all-gather", lambda *args: args[1].nbytes),
        (gathers, "_reduce_scatter"): ("reduce-scatter", lambda *args: args[0].nbytes),
        (dist, "batch_isend_irecv"): ("pass on", lambda ops: ops[-1].tensor.nbytes),
        (dist, "broadcast"): ("broadcast", lambda x: x.nbytes),
        (dist, "all_reduce"): ("all-reduce", lambda x: x.nbytes),
    }
    patches = [
        patch.object(place, name, watch(says, getattr(place, name), received))
        for (place, name), (says, received) in watched.items()
    ]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def _of_objective(make: Callable[[], Any]) -> tuple[Log, Log]:
    """Forward and backward of a step, in float32, without the reduction of DDP."""
    objective = make().float()
    given = random_batches(1, rows=UNITS * world_size(), views=views_of(objective))
    batch = share(suited(objective, given)[0], rank(), world_size())
    batch.views = batch.views.float()
    forward: Log = []
    backward: Log = []
    with logged(forward):
        terms = objective.terms(objective.embed(batch), batch)
    with logged(backward):
        torch.stack(list(terms.values())).sum().backward()
    return forward, backward


def _of_sides(loss_of: Callable[..., Tensor]) -> tuple[Log, Log]:
    """The same of a loss of images and texts."""
    image, text = torch.randn(2, UNITS, FEATURES).unbind()
    forward: Log = []
    backward: Log = []
    with logged(forward):
        loss = loss_of(image.requires_grad_(), text.requires_grad_())
    with logged(backward):
        loss.backward()
    return forward, backward


def clip_of(image: Tensor, text: Tensor, *, exchange: Any) -> Tensor:
    """As an objective calls it."""
    ids_M = gather_detached(torch.arange(UNITS) + rank() * UNITS)
    keys = (exchange_rows(x, exchange) for x in (image, text))
    where: dict[str, Any] = {"offset": rank() * UNITS, "gather": gather_detached}
    how: dict[str, Any] = {"temperature": 0.1, "backend": "fused"}
    return clip(image, text, *keys, ids_M=ids_M, **where, **how)


def sigmoid_of(image: Tensor, text: Tensor, *, with_gradient: bool = False) -> Tensor:
    """As an objective calls it; or with texts that are gathered with their gradient."""
    how: dict[str, Any] = {"temperature": 0.1, "bias": -10.0}
    if with_gradient:
        ids = torch.arange(UNITS) + rank() * UNITS, torch.arange(UNITS * world_size())
        return sigmoid_pairs(image, gather_rows(text), ids=ids, **how)
    gathered = gather_detached(image), gather_detached(text)
    return sigmoid_pairs(image, text, gathered=gathered, part=rank(), **how)


ROWS = VIEWS * UNITS
LABELS, NUMBERS = ("all-gather", 8 * ROWS), ("all-gather", 12 * ROWS)
GATHERED, ROUND = ("all-gather", 4 * ROWS * FEATURES), ("pass on", 4 * ROWS * FEATURES)
SUMMED = ("reduce-scatter", 4 * ROWS * FEATURES)

PAIR_LABELS, PAIR_NUMBERS = ("all-gather", 8 * UNITS), ("all-gather", 24 * UNITS)
SIDE_GATHERED, SIDE_ROUND = (
    ("all-gather", 4 * UNITS * FEATURES),
    ("pass on", 4 * UNITS * FEATURES),
)
SIDE_SUMMED = ("reduce-scatter", 4 * UNITS * FEATURES)
IMAGES_SHUFFLED = ("all-gather", 4 * UNITS * SIDE * SIDE)
COUNT, RADIOMICS = ("all-gather", 8), ("all-gather", 8 * UNITS * 102)
C2L_SHUFFLED = [IMAGES_SHUFFLED, SIDE_GATHERED] * 2

OBJECTIVES: dict[str, tuple[Callable[[], Any], Log, Log]] = {
    "simclr": (partial(simclr, backend="fused"), [GATHERED, LABELS], [NUMBERS]),
    "simclr, dense": (partial(simclr, backend="reference"), [GATHERED, LABELS], []),
    "simclr, ring": (partial(simclr, exchange="ring"), [LABELS, ROUND], [NUMBERS, ROUND]),
    "micle": (partial(micle, backend="fused"), [GATHERED, LABELS, LABELS], [NUMBERS]),
    "micle, ring": (partial(micle, exchange="ring"), [LABELS, LABELS, ROUND], [NUMBERS, ROUND]),
    "moco": (moco, [SIDE_GATHERED], []),
    "moco, batch norm": (
        partial(moco, "batch"),
        [IMAGES_SHUFFLED, SIDE_GATHERED, SIDE_GATHERED],
        [],
    ),
    "c2l": (c2l, [SIDE_GATHERED] * 3, []),
    "c2l, batch norm": (partial(c2l, "batch"), C2L_SHUFFLED + [SIDE_GATHERED] * 3, []),
    "c2l, nce": (partial(c2l, nce_images=80), [("all-gather", 4)] + [SIDE_GATHERED] * 3, []),
    "moco v3": (moco_v3, [SIDE_GATHERED, SIDE_GATHERED], []),
    "byol": (byol, [], []),
    "barlow twins": (barlow_twins, [GATHERED], [SUMMED]),
    "vicreg": (vicreg, [GATHERED], [SUMMED]),
    "knowledge contrast": (knowledge_contrast, [COUNT, RADIOMICS, GATHERED, LABELS], []),
}
"""Forward and backward; one pass of a ring stands for ranks - 1 exchanges."""

LOSSES: dict[str, tuple[Callable[..., Tensor], Log, Log]] = {
    "clip": (
        partial(clip_of, exchange="gather"),
        [PAIR_LABELS, SIDE_GATHERED, SIDE_GATHERED],
        [PAIR_NUMBERS],
    ),
    "clip, ring": (
        partial(clip_of, exchange="ring"),
        [PAIR_LABELS, SIDE_ROUND, SIDE_ROUND],
        [PAIR_NUMBERS, SIDE_ROUND, SIDE_ROUND],
    ),
    "sigmoid pairs": (sigmoid_of, [SIDE_GATHERED, SIDE_GATHERED], []),
    "sigmoid pairs, with gradient": (
        partial(sigmoid_of, with_gradient=True),
        [SIDE_GATHERED],
        [SIDE_SUMMED],
    ),
}


def on(ranks: int, log: Log) -> Log:
    """With every exchange of the rounds."""
    return [call for call in log for _ in range(ranks - 1 if call[0] == "pass on" else 1)]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_exchanges_what_the_table_says(name: str, ranks: int) -> None:
    make, forward, backward = OBJECTIVES[name]
    want = on(ranks, forward), on(ranks, backward)
    assert run_on_ranks(_of_objective, ranks, make) == [want] * ranks


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_images_and_texts_exchanges_what_the_table_says(name: str, ranks: int) -> None:
    loss_of, forward, backward = LOSSES[name]
    want = on(ranks, forward), on(ranks, backward)
    assert run_on_ranks(_of_sides, ranks, loss_of) == [want] * ranks


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_process_exchanges_nothing(name: str) -> None:
    assert _of_objective(OBJECTIVES[name][0]) == ([], [])
