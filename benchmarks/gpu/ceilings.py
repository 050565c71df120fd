"""G0: what the card does at best, beside which every other number is read."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.report import Table
from benchmarks.timing import race


def run(setting: Setting) -> Iterator[Table]:
    """A product of square bfloat16 matrices and a copy on the device."""
    side, size = (256, 2**20) if setting.tiny else (8192, 2**31)
    a, b = (torch.randn(side, side, device=setting.device, dtype=setting.dtype) for _ in range(2))
    source = torch.empty(size, dtype=torch.uint8, device=setting.device).random_()
    target = torch.empty_like(source)
    calls = {"matmul": lambda: a @ b, "copy": lambda: target.copy_(source)}
    done = {"matmul": 2.0 * side**3, "copy": 2.0 * size}
    shown = {"matmul": (f"{side}^3 bfloat16", "TFLOP/s"), "copy": (f"{size >> 20} MiB", "TB/s")}
    table = Table("G0 Ceilings", ["what", "size", "median", "best"])
    times = race(calls, seconds=setting.row_s, device=setting.device)
    for name, spent in times.items():
        size_told, unit = shown[name]
        rates = [done[name] / seconds / 1e12 for seconds in (spent.median, spent.best)]
        cells = {"what": name, "size": size_told}
        cells |= {k: f"{r:.4g} {unit}" for k, r in zip(("median", "best"), rates, strict=True)}
        table.rows.append(cells)
        table.details.append({"name": name, "a second": done[name] / spent.median})
    yield table
