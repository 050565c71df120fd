"""What ranks exchange a step where reports are read, in the layouts that parts differ in."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from torch.optim.sgd import SGD

from benchmarks.exchanges import Calls, Layout, backwards, reduced, sharded
from benchmarks.without_memory import VOCABULARY, shipped
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.pair_contrast import PairContrast
from lightning_rad.objectives.refers import StudyContrast
from lightning_rad.training.strategies import DDP, Sharded
from tests.training.spread_nets import made
from tests.training.test_exchanged import (
    KEPT,
    OVER_NODES,
    counted,
    in_pieces,
    of_parameters,
    rows,
    run_on_ranks,
)

NAMES = ["image_report_clip", "image_report_siglip", "refers"]


def _in_bfloat16(name: str) -> Objective:
    return made(name).float()


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_memories_are_gathered_in_bfloat16_and_what_lies_beside_parts_is_not(
    name: str,
) -> None:
    how = {"precision": "bf16-mixed", "plugins": []}
    [[found], _] = run_on_ranks(partial(counted, **how), 2, partial(_in_bfloat16, name), Sharded)
    assert of_parameters(found, name, 2, 2) == sharded(made(name), Layout(2, bfloat16=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_embedded_in_pieces_is_gathered_for_each(name: str) -> None:
    found, other = run_on_ranks(counted, 2, partial(in_pieces, name), Sharded, KEPT, DDP)
    assert found == other
    freed, kept, whole = (of_parameters(calls, name, 2, 8) for calls in found)
    assert freed == sharded(made(name), Layout(2, pieces=4), size=8)
    assert kept == sharded(made(name), Layout(2, pieces=4, reshard=False), size=8)
    assert whole == reduced(backwards(made(name), 8))


@pytest.mark.parametrize("name", ["image_report_siglip", "refers"])
def test_between_nodes_gradients_pass_once_a_step_and_those_of_numbers_each_time(
    name: str,
) -> None:
    how = {"nodes": 2, "accumulate_grad_batches": 2, "max_steps": 4}
    found = run_on_ranks(partial(counted, **how), 4, partial(made, name), OVER_NODES)
    assert found[1:] == found[:-1]
    others = rows(name, 4, 8)  # of the second micro-batch
    [apart] = (of_parameters(calls, name, 4, 8) - others for calls in found[0])
    assert apart == sharded(made(name), Layout(2, nodes=2, accumulated=2), size=8)


CLIP, SIGLIP, REFERS = NAMES
UNITS, WIDTH = 4, {CLIP: 7, SIGLIP: 7, REFERS: 36}
VIEWS = {CLIP: 2, SIGLIP: 2, REFERS: 1}
WAYS: dict[str, tuple[str, Any]] = {
    "softmax": (CLIP, PairContrast(backend="fused")),
    "softmax, ring": (CLIP, PairContrast(exchange="ring")),
    "softmax, faithful": (CLIP, PairContrast(backend="fused", faithful=True)),
    "sigmoid": (SIGLIP, PairContrast("sigmoid", temperature=0.1, backend="fused")),
    "refers": (REFERS, StudyContrast(backend="fused")),
    "refers, ring": (REFERS, StudyContrast(exchange="ring")),
    "refers, faithful": (REFERS, StudyContrast(backend="fused", faithful=True, faithful_code=True)),
}


def of_rows(way: str) -> Calls:
    """Of the rows of two ranks in float64, as the table of docs/numerics.md has them."""
    name, how = WAYS[way]
    pairs = VIEWS[name] * UNITS
    sides = ("all-gather" if how.exchange == "gather" else "pass on", 8 * WIDTH[name] * pairs)
    calls = Counter({sides: 2 if how.exchange == "gather" else 4})  # a ring goes round in backward
    calls["all-gather", 8 * pairs] += 1 if how.faithful else 2
    calls["all-gather", 2 * 3 * 8 * pairs] += way != "sigmoid"  # three numbers a row of each side
    calls["all-gather", 8] += name == REFERS
    return +calls


def _each_way() -> list[Calls]:
    return [
        counted(partial(made, name, contrast=how), partial(DDP, bucket_cap_mb=1))[0]
        for name, how in WAYS.values()
    ]


def test_rows_are_exchanged_as_the_table_says_by_each_form() -> None:
    found, other = run_on_ranks(_each_way, 2)
    assert found == other
    beside = Counter([("all-reduce", 4), ("all-reduce", 8)])
    for (way, (name, how)), calls in zip(WAYS.items(), found, strict=True):
        weight = reduced(backwards(made(name, contrast=how), 8))
        assert calls == of_rows(way) + weight + beside, way


@pytest.mark.parametrize("config", ["image_report_clip", "image_report_siglip", "refers"])
def test_objectives_of_files_have_all_parameters_of_theirs_and_none_in_memory(config: str) -> None:
    objective = shipped(config)
    optimizer: Any = objective.configure_optimizers()
    assert isinstance(optimizer, SGD)
    assert all(p.is_meta for p in objective.parameters())
    tables = [p for p in objective.parameters() if p.shape[:1] == (VOCABULARY,)]
    assert len(tables) == (3 if config == "refers" else 1)
    assert sum(not p.ndim for p in objective.parameters()) == {"clip": 1, "siglip": 2}.get(
        config.removeprefix("image_report_"), 0
    )
