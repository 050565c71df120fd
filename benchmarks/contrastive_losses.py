"""Contrastive losses, forward and backward on a CPU: ours, the dense definition, lightly.

    python benchmarks/contrastive_losses.py [OUT.md]

Contenders take turns, round by round, on the same inputs and must agree first; a row gives the
median time of ours and how many times as long the others take.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from lightning_rad.losses.info_nce import info_nce
from lightning_rad.losses.nt_xent import nt_xent

T = 0.1
PAIRS = [(256, 128), (1024, 128), (4096, 128), (4096, 512)]
QUEUES = [(256, 4096, 128), (256, 65536, 128)]
Loss = Callable[[Tensor], Tensor]


def simclr(pairs: int, dim: int) -> tuple[Tensor, dict[str, Loss]]:
    ids = torch.arange(pairs).repeat(2)
    rows = torch.randn(2 * pairs, dim, generator=torch.Generator().manual_seed(0))
    lightly = NTXentLoss(T)
    return rows, {
        "ours": lambda z: nt_xent(z, z, ids, temperature=T, backend="fused"),
        "dense": lambda z: nt_xent(z, z, ids, temperature=T, backend="reference"),
        "lightly": lambda z: lightly(z[:pairs], z[pairs:]),
    }


def moco(rows: int, length: int, dim: int) -> tuple[Tensor, dict[str, Loss]]:
    make = torch.Generator().manual_seed(0)
    query = torch.randn(rows, dim, generator=make)
    keys = torch.nn.functional.normalize(torch.randn(length + rows, dim, generator=make))
    positive, queue = keys[:rows], keys[rows:].contiguous()
    return query, {
        "ours": lambda q: info_nce(q, positive, queue, temperature=T, backend="fused"),
        "dense": lambda q: info_nce(q, positive, queue, temperature=T, backend="reference"),
    }


def step(loss: Loss, x: Tensor) -> tuple[float, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    value.backward()
    assert x.grad is not None
    return value.item(), x.grad


def compare(x: Tensor, losses: dict[str, Loss], rounds: int) -> dict[str, float]:
    """Median seconds of each contender, once they agree."""
    value, gradient = step(losses["dense"], x)
    for name, loss in losses.items():
        other, other_gradient = step(loss, x)
        assert abs(other - value) < 1e-4 * abs(value), name
        assert (other_gradient - gradient).norm() < 1e-3 * gradient.norm(), name
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            begun = time.perf_counter()
            step(loss, x)
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, float32, t {T}, median of {asked.rounds} rounds",
        "",
        "| loss | shape | ours, ms | dense / ours | lightly / ours |",
        "|---|---|---|---|---|",
    ]
    problems = [("NT-Xent", simclr, shape) for shape in PAIRS]
    problems += [("InfoNCE", moco, shape) for shape in QUEUES]
    for title, make, shape in problems:
        times = compare(*make(*shape), asked.rounds)
        cells = [title, " x ".join(map(str, shape)), f"{1000 * times['ours']:.1f}"]
        ratios = {name: f"{taken / times['ours']:.1f}" for name, taken in times.items()}
        cells += [ratios.get(name, "") for name in ("dense", "lightly")]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if asked.out:
        asked.out.write_text(text)


if __name__ == "__main__":
    main()
