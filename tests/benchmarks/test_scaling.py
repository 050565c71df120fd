"""The table of scaling is the arithmetic that it says it is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks import exchanges
from benchmarks.scaling import (
    NETWORKS,
    Machine,
    Network,
    efficiency,
    filled,
    gathering,
    reduction,
    simclr,
    with_table,
)
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector

DOCUMENT = Path(__file__).parents[2] / "docs/scaling.md"
NAMES = {"ResNet-50": ("resnet50", None), "ViT-B/16": ("vit_base_patch16_224", 224)}


def test_the_documents_tables_are_those_of_the_script() -> None:
    text = DOCUMENT.read_text()
    assert filled(text, Machine()) == text
    assert filled(text, replace(Machine(), inside=1e9)) != text


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_parameters_and_norms_are_those_of_our_networks(network) -> None:  # type: ignore[no-untyped-def]
    name, size = NAMES[network.name]
    with torch.device("meta"):
        encoder = Encoder(name, image_size=size)
        head = Projector(encoder.out_features, hidden=2048, out_features=128, layers=2)
    whole = nn.Sequential(encoder, head)
    assert sum(p.numel() for p in whole.parameters() if p.requires_grad) == network.parameters
    assert sum(isinstance(m, _BatchNorm) for m in whole.modules()) == network.norms


def test_a_reduction_and_a_gather_take_what_a_ring_takes() -> None:
    """100 MB over 4 ranks: each sends 1.5 times that; a gather brings the other three's."""
    machine = replace(Machine(), inside=1e9, hop=0.0)
    assert reduction(machine, 4, 1e8) == pytest.approx(0.15)
    assert gathering(machine, 4, 1e6, 2) == pytest.approx(0.003)
    assert reduction(machine, 1, 1e8) == gathering(machine, 1, 1e6, 2) == 0.0
    slow = replace(machine, outside=1e8, hop=1e-3)
    assert reduction(slow, 16, 1e8) == pytest.approx(15 / 16 * 2 + 4e-3)


def test_without_costs_scaling_is_perfect_and_each_cost_takes_from_it() -> None:
    free = Machine(inside=math.inf, outside=math.inf, hop=0.0, loss_share=math.inf, launch=0.0)
    network = NETWORKS[0]
    assert efficiency(free, network, 64, 4096) == pytest.approx(1.0)
    for change in (
        {"inside": 1e9, "outside": 1e9},
        {"hop": 1e-5},
        {"loss_share": 0.01},
        {"launch": 0.2},
    ):
        assert efficiency(replace(free, **change), network, 64, 4096) < 0.999, change


def test_what_a_step_waits_for_is_never_less_than_the_last_bucket() -> None:
    for network in NETWORKS:
        for ranks in (8, 64, 512):
            step = simclr(Machine(), network, ranks, 32768)
            assert 0 < step.exposed <= step.reduction
            assert step.whole < step.network + step.loss + step.gathers + step.norms + 1.0


def test_the_table_of_strategies_is_that_of_the_script() -> None:
    text = (DOCUMENT.parent / "numerics.md").read_text()
    assert with_table(text, exchanges.MARK, exchanges.table()) == text
    assert with_table(text, exchanges.MARK, exchanges.table(16)) != text


@pytest.mark.parametrize(("network", "case"), [(NETWORKS[0], 0), (NETWORKS[1], 3)])
def test_shipped_objectives_have_the_gradients_that_steps_are_reckoned_with(
    network: Network, case: int
) -> None:
    _, config, encoder = exchanges.CASES[case]
    assert sum(exchanges.backwards(exchanges.shipped(config, **encoder))) == 4 * network.parameters


def test_a_rank_receives_what_rings_and_gathers_bring() -> None:
    calls = Counter({("all-reduce", 800): 1, ("all-gather", 10): 3, ("reduce-scatter", 5): 2})
    assert exchanges.received(calls, 8) == 2 * 700 + 7 * (30 + 10)
    assert exchanges.reduced([60, 50, 30, 80, 10], cap=100) == Counter(
        [("all-reduce", 110), ("all-reduce", 110), ("all-reduce", 10)]
    )
    part = [nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(1))]
    assert exchanges.held(part, 4) == 2 * 3 + 1
