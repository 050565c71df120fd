"""The benchmark compares what is equal, and says so where something is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.problems import PROBLEMS, two_views
from benchmarks.ways import Way, agreeing, leaf, present, reasons

SHAPES = {
    "NT-Xent": (9, 8),
    "NT-Xent, mined": (5, 8),
    "SupCon": (4, 3, 8),
    "InfoNCE": (6, 20, 8),
    "CLIP": (9, 8),
    "sigmoid": (9, 8),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_all_ways_to_a_loss_are_here_and_agree(problem: str) -> None:
    ways = agreeing(PROBLEMS[problem](*SHAPES[problem]), "dense")
    assert not reasons(ways)
    assert {"dense", "definition", "ours", "ours, bf16"} <= set(ways)


@pytest.mark.parametrize("wrong", ["loss", "gradient"])
def test_a_way_that_is_wrong_gives_way_to_the_reason(wrong: str) -> None:
    ways = two_views(6, 8)
    dense = present(ways)["dense"]

    def planted(z: Tensor) -> Tensor:
        value = dense.loss(z)
        slope, height = (1.0, 1.05) if wrong == "loss" else (1.05, 1.0)
        return slope * (value - value.detach()) + height * value.detach()

    ways |= {"planted": Way(planted, (leaf(dense.leaves[0]),))}
    judged = agreeing(ways, "dense")
    assert str(judged["planted"]).startswith("disagrees")
    assert set(reasons(judged)) == {"planted"}


def test_a_way_that_fails_does_not_stop_the_others() -> None:
    def broken(z: Tensor) -> Tensor:
        raise RuntimeError("no such kernel\nand a long story")

    ways = agreeing(two_views(4, 8) | {"broken": Way(broken, (torch.ones(1),))}, "dense")
    assert ways["broken"] == "fails: RuntimeError: no such kernel"
    assert "ours" in present(ways)
