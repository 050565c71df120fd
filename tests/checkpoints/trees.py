"""Checkpoints small enough for tests, with all that real ones hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_rad.checkpoints import Writer, named


def trained(steps: int = 1, seed: int = 0) -> dict[str, Any]:
    """A small network in channels_last after steps of AdamW, as Lightning would hand it over."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    )
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(steps):
        net(torch.rand(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return {
        "global_step": steps,
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "loops": {"fit_loop": {"state_dict": {}, "progress": [1, (2, None)], "done": False}},
        "objective": "SimCLR",
    }


def saved(folder: Path, step: int, tree: dict[str, Any] | None = None, **how: Any) -> Path:
    """A checkpoint of a step in a folder, on disk."""
    path = folder / named(step)
    writer = Writer()
    assert writer.save(trained() if tree is None else tree, path, step=step, **how)
    error = writer.wait()
    if error is not None:
        raise error
    return path
