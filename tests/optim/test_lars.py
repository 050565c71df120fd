"""LARS against a transcription of its definition, one parameter at a time, in NumPy float64."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_rad.optim.lars import LARS

SHAPES = [(5, 3), (7,), (2, 3, 4), (4, 4), (1,)]


def straight_line(
    w: Any, v: Any, g: Any, lr: float, wd: float, options: dict[str, Any], adapt: bool
) -> tuple[Any, Any]:
    """One step as equations, for one parameter: the new w and v."""
    m, trust = 0.9, options.get("trust", 1e-3)

    def ratio(x: Any) -> float:
        a, b = np.sqrt((w**2).sum()), np.sqrt((x**2).sum())
        return float(trust * a / b) if adapt and a > 0 and b > 0 else 1.0

    form = options.get("velocity", "scaled")
    g = g + wd * w
    scale = {"scaled": lr * ratio(g), "adapted": ratio(g)}[form]
    v = m * v + scale * g
    step = m * v + scale * g if options.get("nesterov") else v
    return w - (step if form == "scaled" else lr * step), v


def _start() -> list[Tensor]:
    make = torch.Generator().manual_seed(0)
    params = [torch.randn(s, generator=make, dtype=torch.float64) for s in SHAPES]
    params[3].zero_()  # norm of the weight is 0
    return params


def _grads(step: int) -> list[Tensor]:
    make = torch.Generator().manual_seed(100 + step)
    grads = [torch.randn(s, generator=make, dtype=torch.float64) for s in SHAPES]
    if step < 2:
        grads[2].zero_()  # norm of the gradient is 0 (but for the decay)
    return grads


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True},
        {"velocity": "adapted", "trust": 0.02},
        {"velocity": "adapted", "nesterov": True},
    ],
)
def test_six_steps_equal_the_definition(options: dict[str, Any], weight_decay: float) -> None:
    params = [nn.Parameter(p) for p in _start()]
    groups = [{"params": params[:4]}, {"params": params[4:], "weight_decay": 0.0, "adapt": False}]
    optimizer = LARS(groups, lr=0.3, weight_decay=weight_decay, **options)
    want = [(p.numpy().copy(), np.zeros(p.shape)) for p in _start()]
    for step in range(6):
        lr = 0.3 / (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for p, g in zip(params, _grads(step), strict=True):
            p.grad = g.clone()
        optimizer.step()
        for i, g in enumerate(_grads(step)):
            wd, adapt = (weight_decay, True) if i < 4 else (0.0, False)
            want[i] = straight_line(*want[i], g.numpy(), lr, wd, options, adapt)
            np.testing.assert_allclose(
                params[i].detach().numpy(), want[i][0], rtol=1e-12, atol=1e-15
            )


def test_gradients_are_left_as_they_are_and_missing_ones_are_skipped() -> None:
    params = [nn.Parameter(p) for p in _start()]
    optimizer = LARS(params, lr=0.1, weight_decay=0.5)
    before, grads = [p.detach().clone() for p in params], _grads(0)
    for p, g in zip(params[1:], grads[1:], strict=True):
        p.grad = g.clone()
    assert optimizer.step(lambda: 4.5) == 4.5
    assert torch.equal(params[0], before[0])
    assert params[0] not in optimizer.state
    for p, g in zip(params[1:], grads[1:], strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, g)


def test_the_step_on_a_layer_does_not_depend_on_the_scale_of_its_gradient() -> None:
    steps = []
    for scale in (1.0, 1e4):
        p = nn.Parameter(torch.linspace(1, 2, 6, dtype=torch.float64))
        p.grad = scale * torch.linspace(-1, 1, 6, dtype=torch.float64)
        before = p.detach().clone()
        LARS([p], lr=1.0, weight_decay=0.0).step()
        steps.append(p.detach() - before)
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-9, atol=0)
    assert steps[0].norm() / torch.linspace(1, 2, 6).norm() == pytest.approx(1e-3, rel=1e-6)


def test_a_restored_optimizer_continues_bit_for_bit() -> None:
    def step(params: list[nn.Parameter], optimizer: LARS, k: int) -> None:
        for p, g in zip(params, _grads(k), strict=True):
            p.grad = g.float()
        optimizer.step()

    params = [nn.Parameter(p.float()) for p in _start()]
    optimizer = LARS(params, lr=0.2)
    step(params, optimizer, 0)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    twins = copy.deepcopy(params)
    restored = LARS(twins, lr=99.0)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for k in (1, 2, 3):
        step(params, optimizer, k)
        step(twins, restored, k)
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"trust": 0.0}]
)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LARS([nn.Parameter(torch.zeros(2))], **({"lr": 0.1} | wrong))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("velocity", ["scaled", "adapted"])
def test_a_step_never_waits_for_the_device(velocity: Any) -> None:
    params = [nn.Parameter(p.float().cuda()) for p in _start()]
    for p, g in zip(params, _grads(0), strict=True):
        p.grad = g.float().cuda()
    optimizer = LARS(params, lr=0.1, velocity=velocity)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(p.isfinite().all() for p in params)
