"""Whether two runs ended with the same checkpoint, bit for bit."""

from pathlib import Path
from typing import Any

import torch

from lightning_rad.checkpoints import newest, read


def last(run: Path) -> dict[str, Any]:
    saved = newest(run / "checkpoints")
    assert saved is not None
    return read(saved)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys(), key=str)
        return [
            d for k in keys for d in differences(one.get(k), other.get(k), f"{at}.{k}" if at else k)
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
        return differences(one, other, at)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [at]
    return [] if type(one) is type(other) and one == other else [at]


def assert_same_end(one: Path, other: Path) -> None:
    ends = [last(one), last(other)]
    for part in (
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "global_step",
        "RadiographData",
    ):
        assert differences(ends[0][part], ends[1][part], part) == []
