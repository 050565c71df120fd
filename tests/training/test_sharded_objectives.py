"""Every objective is the same run on one process, on copies and on shards: loss, weights, twin."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

from lightning_rad.optim.lars import LARS
from lightning_rad.training.strategies import DDP, Sharded
from tests.gloo import run_on_ranks
from tests.objectives.fixed import Snapshot
from tests.training.spread_nets import KINDS, made, on_ranks, sgd, steps, vit


def adamw(groups: Any, **how: Any) -> torch.optim.Optimizer:
    plain = [{k: v for k, v in group.items() if k != "adapt"} for group in groups]
    return torch.optim.AdamW(plain, lr=1e-2, **how)


def lars(groups: Any, **how: Any) -> LARS:
    return LARS(groups, lr=0.5, trust=0.1, weight_decay=0.1, **how)


TWO = {"accumulate_grad_batches": 2, "max_steps": 1}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "adamw": ("moco_v3", {"optimizer": adamw}, {}),
    "adamw_fused": ("moco_v3", {"optimizer": partial(adamw, fused=True)}, {}),
    "lars": ("moco_v3", {"optimizer": lars}, {}),
    "lars_adapted": ("byol", {"optimizer": partial(lars, nesterov=True, velocity="adapted")}, {}),
    "clipped_by_norm": ("moco_v3", {}, {"gradient_clip_val": 0.01}),
    "clipped_by_value": (
        "moco_v3",
        {},
        {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"},
    ),
    "accumulated": ("moco", {}, TWO | {"gradient_clip_val": 0.01}),
    "in_parts": ("moco_v3", {"embed_at_once": 1}, {}),
    "accumulated_in_parts": ("byol", {"embed_at_once": 1}, TWO),
    "validated": ("byol", {}, {"limit_val_batches": 1, "num_sanity_val_steps": 1}),
    "frozen": (
        "moco_v3",
        {"encoder": partial(vit, frozen=["patch_embed"], position="sincos")},
        {},
    ),
}
"""By name: the objective, what is changed of it, and of the trainer; no optimiser is SGD."""


def of_case(name: str, **others: Any) -> tuple[Any, dict[str, Any]]:
    kind, changes, how = CASES.get(name, (name, {}, {}))
    objective = made(kind, **({k: v for k, v in changes.items() if k != "embed_at_once"} | others))
    objective.embed_at_once = changes.get("embed_at_once")
    return objective, {"count": 2} | how


def _spread(names: list[str], strategy: Callable[[], Any], nodes: int) -> dict[str, Any]:
    runs = {}
    for name in names:
        # ranks that begin elsewhere: the strategy has to start them all as rank 0
        objective, how = of_case(name, seed=torch.distributed.get_rank())
        runs[name] = on_ranks(objective, strategy(), nodes=nodes, **how)
    return runs


LAYOUTS: dict[str, tuple[int, Callable[[], Any], int, list[str]]] = {
    "ddp-2": (2, DDP, 1, list(KINDS)),
    "ddp-4": (4, DDP, 1, list(KINDS)),
    "sharded-2": (2, Sharded, 1, [*KINDS, *CASES]),
    "sharded-4": (4, Sharded, 1, [*KINDS, "lars", "adamw", "clipped_by_norm"]),
    "hybrid-4": (4, partial(Sharded, shard_over="node"), 2, ["moco_v3", "lars", "accumulated"]),
    "whole_between": (2, partial(Sharded, reshard_after_forward=False), 1, ["byol", "in_parts"]),
}
"""By name: ranks, strategy, nodes, and what runs so."""


@cache
def spread(layout: str) -> list[dict[str, list[Snapshot]]]:
    """By rank and name: the steps, of all that runs in a layout."""
    ranks, strategy, nodes, names = LAYOUTS[layout]
    return run_on_ranks(_spread, ranks, names, strategy, nodes, timeout=240)


@cache
def alone(name: str) -> list[Snapshot]:
    objective, how = of_case(name)
    return steps(objective, **how)


@pytest.mark.parametrize(
    ("layout", "name"),
    [(layout, name) for layout, (*_, names) in LAYOUTS.items() for name in names],
)
def test_ranks_end_where_one_process_does(layout: str, name: str) -> None:
    """In float64, to 1e-9, after each step; the terms to as much, as the mean of the ranks'."""
    expected = alone(name)
    by_rank = [runs[name] for runs in spread(layout)]
    assert all(len(mine) == len(expected) for mine in by_rank)
    for step, theirs in enumerate(expected):
        for mine in by_rank:
            assert mine[step].state.keys() == theirs.state.keys()
            for key, value in theirs.state.items():
                torch.testing.assert_close(
                    mine[step].state[key], value, rtol=1e-9, atol=1e-9, msg=f"{step} {key}"
                )
        for term, value in theirs.terms.items():
            mean = sum(mine[step].terms[term] for mine in by_rank) / len(by_rank)
            assert mean == pytest.approx(value, rel=1e-9), term


@pytest.mark.parametrize("name", [*KINDS, *CASES])
def test_what_is_compared_moves(name: str) -> None:
    """By a thousand times the bound at least; what does not learn stays."""
    start = of_case(name)[0].state_dict()
    end = alone(name)[-1].state
    moved = {key: float((end[key] - start[key]).abs().max()) for key in end}
    first = ("encoder.net.blocks.0", "encoder.net.layer1.0")
    assert max(v for k, v in moved.items() if k.startswith(first)) > 1e-6
    assert max(v for k, v in moved.items() if k.startswith(("projector", "decoder"))) > 1e-6
    if any(key.startswith("twin.") for key in end):
        assert max(v for k, v in moved.items() if k.startswith("twin.")) > 1e-6
    if name == "frozen":
        assert moved["encoder.net.patch_embed.proj.weight"] == 0
        assert moved["encoder.net.pos_embed"] == 0


@pytest.mark.parametrize("layout", ["sharded-2", "sharded-4", "hybrid-4"])
def test_the_queue_is_equal_in_all_bits_on_all_ranks(layout: str) -> None:
    names = {"moco", "c2l", "accumulated"} & set(LAYOUTS[layout][3])
    assert names
    for name in names:
        first, *others = (runs[name][-1].under("queue") for runs in spread(layout))
        for other in others:
            assert all(torch.equal(other[key], value) for key, value in first.items())


def test_accumulated_steps_are_not_those_of_one_batch() -> None:
    """What the case `accumulated` must tell apart."""
    once = steps(made("moco", optimizer=sgd), count=1, gradient_clip_val=0.01)[-1].state
    twice = alone("accumulated")[-1].state
    assert any(not torch.allclose(once[k], twice[k], rtol=1e-3) for k in once if "encoder" in k)
