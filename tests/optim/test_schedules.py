"""Warm-up and cosine: the values at the points that matter, and after a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_rad.optim.schedules import StepDecay, WarmupCosine


def _optimizer() -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (2.0, 0.5)]
    return torch.optim.SGD(groups)


def _rates(steps: int, **options: Any) -> list[list[float]]:
    """The rate of each group at optimiser steps 0 to steps - 1."""
    optimizer = _optimizer()
    schedule = WarmupCosine(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


def test_key_points_of_every_group() -> None:
    rates = _rates(120, warmup=0.1, total_steps=100, floor=0.1)
    for k, factor in {
        0: 0.1,
        4: 0.5,
        9: 1.0,
        10: 1.0,
        40: 0.1 + 0.9 * (1 + 0.5) / 2,
        55: 0.55,
        100: 0.1,
        119: 0.1,
    }.items():
        assert rates[k] == pytest.approx([2 * factor, 0.5 * factor], rel=1e-12)
    main = [r[0] for r in rates]
    assert main[:10] == sorted(main[:10])
    assert main[10:] == sorted(main[10:], reverse=True)


def test_no_warmup_starts_whole_and_the_default_floor_is_zero() -> None:
    rates = _rates(9, warmup=0.0, total_steps=8)
    assert rates[0] == [2.0, 0.5]
    assert rates[8] == pytest.approx([0, 0], abs=1e-15)


@pytest.mark.parametrize("at", [3, 10, 57])
def test_a_restored_schedule_continues_bit_for_bit(at: int) -> None:
    options: dict[str, Any] = {"warmup": 0.13, "total_steps": 80, "floor": 0.01}
    whole = _rates(80, **options)
    optimizer = _optimizer()
    schedule = WarmupCosine(optimizer, **options)
    for _ in range(at):
        optimizer.step()
        schedule.step()
    resumed = _optimizer()
    other = WarmupCosine(resumed, **options)
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(schedule.state_dict())
    for k in range(at, 80):
        assert [g["lr"] for g in resumed.param_groups] == whole[k]
        resumed.step()
        other.step()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"warmup": 1.0, "total_steps": 5}, "warmup"),
        ({"warmup": -0.1, "total_steps": 5}, "warmup"),
        ({"warmup": 0.0, "total_steps": 5, "floor": 1.5}, "floor"),
        ({"total_steps": 0}, "total_steps"),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        WarmupCosine(_optimizer(), **options)


def test_step_decay_is_that_of_moco_and_survives_a_resume() -> None:
    """Against torch's MultiStepLR with the milestones in steps: epochs 120 and 160 of 200."""
    ours, theirs = _optimizer(), _optimizer()
    schedule = StepDecay(ours, 200, milestones=[0.6, 0.8])
    reference = torch.optim.lr_scheduler.MultiStepLR(theirs, [120, 160], gamma=0.1)
    for step in range(200):
        rates = [[g["lr"] for g in o.param_groups] for o in (ours, theirs)]
        assert rates[0] == pytest.approx(rates[1], rel=1e-12), step
        if step == 150:
            fresh = StepDecay(ours, 200, milestones=[0.6, 0.8])
            fresh.load_state_dict(schedule.state_dict())
            schedule = fresh
        for optimizer, s in ((ours, schedule), (theirs, reference)):
            optimizer.step()
            s.step()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"milestones": [0.5, 1.0]}, "milestones"),
        ({"milestones": [60]}, "milestones"),
        ({"milestones": [0.5], "factor": 0.0}, "factor"),
    ],
)
def test_step_decay_refuses_values_out_of_range(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"schedule\.{name}"):
        StepDecay(_optimizer(), 100, **options)
