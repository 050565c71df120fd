"""G7: the twin's moving average, LARS and AdamW on a ResNet-50, against the bytes they move."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import averages
from benchmarks.gpu.setting import Setting
from benchmarks.report import Table
from benchmarks.timing import race

PASSES = {"moving average": 3, "LARS": 7, "AdamW": 7}
"""Of 4 bytes a parameter, at least. Average: read both, write one. LARS: read both for the norms,
then parameter, gradient and velocity, write two. AdamW: read four, write three."""


def run(setting: Setting) -> Iterator[Table]:
    """The table of `averages`, AdamW, and for each row the fraction of the floor."""
    name = "resnet18" if setting.tiny else "resnet50"
    table, _ = averages.measure(name, seconds=setting.row_s, device=setting.device)
    table.title = f"G7 {table.title}"
    net = averages.network(name, setting.device)
    adam = torch.optim.AdamW(net.parameters(), fused=True)
    spent = race({"step": adam.step}, seconds=setting.row_s, device=setting.device)["step"]
    shown = f"{1e3 * spent.median:.3f} ({1e3 * spent.best:.3f})"
    table.rows.append({"update": "AdamW", "way": "torch, fused", "ms (best)": shown})
    table.columns.append("of the floor")
    size = 4 * sum(p.numel() for p in net.parameters())
    for row in table.rows:
        least = PASSES[row["update"]] * size / setting.ceilings()["copy"]
        row["of the floor"] = f"{1e3 * least / float(row['ms (best)'].split()[0]):.0%}"
        setting.say(" | ".join(row.values()))
    yield table
