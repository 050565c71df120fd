"""Updates of a ResNet-50's parameters: the twin that follows, and LARS, ours and public ones."""

from __future__ import annotations

import copy
from collections.abc import Callable

import timm
import torch
from timm.optim import Lars
from timm.utils import ModelEmaV2
from torch import Tensor, nn

from benchmarks.report import Goal, Table
from benchmarks.timing import Call, race
from benchmarks.ways import optional
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.optim.lars import LARS

MOMENTUM = 0.99
RATE = 0.1
EMA_LEAST = 1.4


def network(name: str, device: str) -> nn.Module:
    """With gradients that are there and not zero."""
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(name, num_classes=0).to(device)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return net


def followers(net: nn.Module) -> dict[str, tuple[Call, nn.Module]]:
    """By name: what updates a copy, begun at 0, by one step; and the copy."""
    twin = MomentumTwin(net, momentum=MOMENTUM)
    ways: dict[str, tuple[Call, nn.Module]] = {"ours": (lambda: twin.follow(net), twin.net)}
    theirs = optional("lightly.models.utils", "update_momentum")
    if not isinstance(theirs, str):
        bank = copy.deepcopy(net)
        ways["lightly"] = (lambda: theirs(net, bank, MOMENTUM), bank)
    slow = copy.deepcopy(net)
    ways["loop"] = (lambda: _loop(net, slow), slow)
    timms = ModelEmaV2(net, decay=MOMENTUM)
    ways["timm ModelEmaV2"] = (lambda: timms.update(net), timms.module)
    for _, copied in ways.values():
        for p in copied.parameters():
            p.requires_grad_(False).zero_()
    return ways


@torch.no_grad()
def _loop(net: nn.Module, slow: nn.Module) -> None:
    for own, new in zip(slow.parameters(), net.parameters(), strict=True):
        own.mul_(MOMENTUM).add_(new, alpha=1 - MOMENTUM)


def optimisers(net: nn.Module) -> dict[str, tuple[Call, nn.Module]]:
    """By name: a step of LARS on a copy, no decay, all parameters adapted; and the copy."""
    made: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "ours": lambda ps: LARS(ps, lr=RATE, weight_decay=0.0, velocity="adapted"),
        "timm Lars": lambda ps: Lars(ps, lr=RATE, momentum=0.9, always_adapt=True, eps=0.0),
    }
    theirs = optional("lightly.utils.lars", "LARS")
    if not isinstance(theirs, str):  # a decay of 1e-30 makes it adapt and decays nothing
        made["lightly LARS"] = lambda ps: theirs(ps, lr=RATE, momentum=0.9, weight_decay=1e-30)
    ways: dict[str, tuple[Call, nn.Module]] = {}
    for name, make in made.items():
        copied = copy.deepcopy(net)
        for own, other in zip(copied.parameters(), net.parameters(), strict=True):
            own.grad = None if other.grad is None else other.grad.clone()
        ways[name] = (make(list(copied.parameters())).step, copied)
    return ways


def measure(
    name: str = "resnet50", *, seconds: float = 4, device: str = "cpu"
) -> tuple[Table, list[Goal]]:
    """How many times as long as ours the others take."""
    table = Table(
        f"Updates of {name}",
        ["update", "way", "ms (best)", "times ours"],
        note="One update of all parameters in float32; results compared after the first.",
    )
    net, goals = network(name, device), []
    for title, ways in (("moving average", followers(net)), ("LARS", optimisers(net))):
        _same_after_one(ways)
        calls = {way: call for way, (call, _) in ways.items()}
        times = race(calls, seconds=seconds, device=device)
        for way, spent in times.items():
            shown = f"{1e3 * spent.median:.2f} ({1e3 * spent.best:.2f})"
            over = f"{spent.over(times['ours']):.2f}"
            cells = {"update": title, "way": way, "ms (best)": shown, "times ours": over}
            table.rows.append(cells)
            table.details.append(cells | {"seconds": spent.summary()})
        if title == "moving average" and "lightly" in times:
            ratio = times["lightly"].over(times["ours"])
            goals.append(Goal(f"moving average, {name}: lightly / ours", EMA_LEAST, ratio))
    return table, goals


def _same_after_one(ways: dict[str, tuple[Call, nn.Module]]) -> None:
    for call, _ in ways.values():
        call()
    wanted = list(ways["ours"][1].parameters())
    for name, (_, copied) in ways.items():
        for own, other in zip(wanted, copied.parameters(), strict=True):
            if not _close(own, other):
                raise ArithmeticError(f"{name}: parameters are not ours after one update")


def _close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).detach().norm()) <= 1e-5 * float(a.detach().norm()) + 1e-12
