"""Lookahead against its definition, and as something that a run is stopped and resumed with."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import SGD, AdamW, Optimizer

from lightning_rad.optim.lars import LARS
from lightning_rad.optim.lookahead import Lookahead
from lightning_rad.optim.schedules import WarmupCosine
from tests.gloo import run_on_ranks

SHAPES = [(5, 3), (7,), (2, 3, 4)]
RATES = (0.3, 0.1)  # of the first two parameters, and of the third
Inner = Callable[[Any], Optimizer]

sgd = partial(SGD, lr=0.3, momentum=0.9, weight_decay=0.01)
adamw = partial(AdamW, lr=0.3, weight_decay=0.01)
lars = partial(LARS, lr=0.3)


def start() -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=make, dtype=torch.float64) for s in SHAPES]


def grads(step: int) -> list[Tensor]:
    make = torch.Generator().manual_seed(100 + step)
    return [torch.randn(s, generator=make, dtype=torch.float64) for s in SHAPES]


def made(inner: Inner, **options: Any) -> tuple[list[nn.Parameter], Lookahead]:
    params = [nn.Parameter(p) for p in start()]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": RATES[1], "weight_decay": 0.0}]
    return params, Lookahead(groups, inner=inner, **options)


def advance(params: list[nn.Parameter], optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for p, g in zip(params, grads(step), strict=True):
            p.grad = g.clone()
        optimizer.step()


def by_hand_sgd(w: Any, g: Any, memory: dict[str, Any], lr: float, wd: float, step: int) -> Any:
    g = g + wd * w
    memory["v"] = g if step == 0 else 0.9 * memory["v"] + g
    return w - lr * memory["v"]


def by_hand_adamw(w: Any, g: Any, memory: dict[str, Any], lr: float, wd: float, step: int) -> Any:
    w = w * (1 - lr * wd)
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    memory["s"] = 0.999 * memory.get("s", 0.0) + 0.001 * g**2
    m, s = memory["m"] / (1 - 0.9 ** (step + 1)), memory["s"] / (1 - 0.999 ** (step + 1))
    return w - lr * m / (np.sqrt(s) + 1e-8)


@pytest.mark.parametrize(("inner", "by_hand"), [(sgd, by_hand_sgd), (adamw, by_hand_adamw)])
def test_twelve_steps_equal_the_definition(inner: Inner, by_hand: Callable[..., Any]) -> None:
    params, optimizer = made(inner)
    fast = [p.numpy().copy() for p in start()]
    slow = [w.copy() for w in fast]
    memories: list[dict[str, Any]] = [{} for _ in fast]
    for step in range(12):
        advance(params, optimizer, range(step, step + 1))
        for i, g in enumerate(grads(step)):
            lr, wd = (RATES[0], 0.01) if i < 2 else (RATES[1], 0.0)
            fast[i] = by_hand(fast[i], g.numpy(), memories[i], lr, wd, step)
            if (step + 1) % 5 == 0:
                slow[i] = slow[i] + 0.5 * (fast[i] - slow[i])
                fast[i] = slow[i].copy()
            np.testing.assert_allclose(params[i].detach().numpy(), fast[i], rtol=0, atol=1e-12)
            kept = optimizer.state[params[i]]["slow"].numpy()
            np.testing.assert_allclose(kept, slow[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("inner", [sgd, adamw, lars])
def test_alpha_1_is_the_inner_optimiser_alone(inner: Inner) -> None:
    params, optimizer = made(inner, alpha=1.0, k=2)
    alone = [nn.Parameter(p) for p in start()]
    plain = inner([{"params": alone[:2]}, {"params": alone[2:], "lr": 0.1, "weight_decay": 0.0}])
    advance(params, optimizer, range(5))
    advance(alone, plain, range(5))
    assert all(torch.equal(p, q) for p, q in zip(params, alone, strict=True))


@pytest.mark.parametrize("inner", [sgd, adamw, lars])
@pytest.mark.parametrize("stopped", range(1, 7))
def test_a_run_resumed_at_any_step_between_two_meetings_is_the_undisturbed_one(
    inner: Inner, stopped: int
) -> None:
    params, optimizer = made(inner)
    advance(params, optimizer, range(stopped))
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": params}, file)
    advance(params, optimizer, range(stopped, 12))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, resumed = made(inner)
    with torch.no_grad():
        for p, q in zip(again, saved["params"], strict=True):
            p.copy_(q)
    resumed.load_state_dict(saved["optimizer"])
    advance(again, resumed, range(stopped, 12))
    assert all(torch.equal(p, q) for p, q in zip(params, again, strict=True))
    for p, q in zip(params, again, strict=True):
        mine, theirs = resumed.state[q], optimizer.state[p]
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine if isinstance(mine[k], Tensor))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_as_the_original(copied: Callable[[Any], Any]) -> None:
    params, optimizer = made(adamw)
    advance(params, optimizer, range(3))
    others, twin = copied((params, optimizer))
    advance(params, optimizer, range(3, 8))
    advance(others, twin, range(3, 8))
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_the_state_of_the_inner_optimiser_alone_is_taken_and_slow_starts_there() -> None:
    params, optimizer = made(sgd)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1, "weight_decay": 0.0}]
    plain = sgd(groups)
    advance(params, plain, range(3))
    here = [p.detach().clone() for p in params]
    optimizer.load_state_dict(plain.state_dict())
    advance(params, optimizer, range(3, 4))
    assert all(
        torch.equal(optimizer.state[p]["slow"], w) for p, w in zip(params, here, strict=True)
    )
    assert [group["since_slow"] for group in optimizer.param_groups] == [1, 1]


def test_a_step_without_any_gradient_changes_nothing_and_does_not_count() -> None:
    params, optimizer = made(sgd)
    others, steady = made(sgd)
    for step in range(7):
        advance(params, optimizer, range(step, step + 1))
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = None
        optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    advance(others, steady, range(7))
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_frozen_parameters_stay_and_late_ones_join_from_where_they_are() -> None:
    still = nn.Parameter(torch.ones(2), requires_grad=False)
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lookahead([still, early, late], inner=partial(SGD, lr=1.0), k=3)
    for step in range(3):
        early.grad = torch.ones(2)
        late.grad = torch.ones(2) if step == 2 else None
        optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert "slow" not in optimizer.state[still]
    assert torch.equal(early, torch.full((2,), 1 - 3 / 2))
    assert torch.equal(late, torch.full((2,), 1 - 1 / 2))


def test_a_parameter_without_a_gradient_at_a_meeting_meets_too() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = Lookahead([a, b], inner=partial(SGD, lr=1.0), k=2)
    a.grad = b.grad = torch.ones(1)
    optimizer.step()
    b.grad = None
    optimizer.step()
    assert (a.item(), b.item()) == (0.0, 0.5)


def test_a_schedule_reaches_the_inner_optimiser() -> None:
    params, optimizer = made(partial(SGD, lr=0.3), k=100)
    schedule = WarmupCosine(optimizer, 4, warmup=0.5)
    before = [p.detach().clone() for p in params]
    advance(params, optimizer, range(1))
    for p, w, g, lr in zip(params, before, grads(0), (0.3, 0.3, 0.1), strict=True):
        torch.testing.assert_close(p, w - lr / 2 * g, rtol=1e-12, atol=0)
    schedule.step()
    assert [group["lr"] for group in optimizer._inner.param_groups] == list(RATES)


def _sharded(inner: Inner) -> list[Tensor]:
    mesh = init_device_mesh("cpu", (2,))
    params = [nn.Parameter(distribute_tensor(p, mesh, [Shard(0)])) for p in start()]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1, "weight_decay": 0.0}]
    optimizer = Lookahead(groups, inner=inner)
    for step in range(12):
        for p, g in zip(params, grads(step), strict=True):
            p.grad = distribute_tensor(g, mesh, [Shard(0)])
        optimizer.step()
    slow = [optimizer.state[p]["slow"] for p in params]
    assert all(isinstance(x, DTensor) for x in slow)
    return [x.full_tensor().detach() for x in [*params, *slow]]


@pytest.mark.parametrize("inner", [sgd, adamw, lars])
def test_shards_on_two_ranks_are_the_parts_of_the_whole(inner: Inner) -> None:
    params, optimizer = made(inner)
    advance(params, optimizer, range(12))
    whole = [*params, *(optimizer.state[p]["slow"] for p in params)]
    for mine in run_on_ranks(_sharded, 2, inner):
        for x, y in zip(mine, whole, strict=True):
            torch.testing.assert_close(x, y.detach(), rtol=1e-12, atol=1e-14)


def test_hooks_and_the_closure_run_once_a_step() -> None:
    [p] = [nn.Parameter(torch.ones(2))]
    optimizer = Lookahead([p], inner=partial(SGD, lr=0.5))
    seen: list[str] = []
    optimizer.register_step_post_hook(lambda *_: seen.append("hook"))

    def closure() -> float:
        seen.append("closure")
        p.grad = p.detach().clone()
        return 3.0

    assert optimizer.step(closure) == 3.0
    assert seen == ["closure", "hook"]
    assert torch.equal(p, torch.full((2,), 0.5))


@pytest.mark.parametrize(("wrong", "name"), [({"k": 0}, "k: 0"), ({"alpha": 0.0}, "alpha: 0.0")])
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Lookahead([nn.Parameter(torch.zeros(2))], inner=sgd, **wrong)
