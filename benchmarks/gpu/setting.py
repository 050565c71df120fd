"""Where a section runs, for how long, and what earlier sections found."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.ways import Way

EXP_A_CLOCK = 16
"""Exponentials an SM makes a clock, on Hopper; with the clock below the third limit of a kernel."""
CLOCK_HZ = 1.755e9
ASSUMED = {"matmul": 798e12, "copy": 3.0e12}
"""FLOP/s and bytes/s where the ceilings were not measured."""


@dataclass(frozen=True)
class Setting:
    """device: cuda, or cpu for a smoke test. tiny: its sizes. until: on time.monotonic."""

    out: Path
    device: str
    tiny: bool
    until: float
    row_s: float = 3.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether no row should be begun any more."""
        return time.monotonic() > self.until

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def compiler(self) -> str:
        """torch.compile's backend; the smoke test only traces."""
        return "eager" if self.tiny else "inductor"

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.begun:6.1f} s  {line}", flush=True)

    def ceilings(self) -> dict[str, float]:
        """FLOP/s of a matmul, bytes/s of a copy, exponentials/s."""
        part = self.out / "parts" / "ceilings.json"
        found = dict(ASSUMED)
        if part.is_file():
            for at in (at for t in json.loads(part.read_text())["tables"] for at in t["details"]):
                found[at["name"]] = at["a second"]
        units = 132
        if self.device == "cuda":
            units = torch.cuda.get_device_properties(0).multi_processor_count
        return found | {"exp": units * EXP_A_CLOCK * CLOCK_HZ}

    def room(self) -> float:
        """Bytes of memory that a way may take."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
            return 0.9 * torch.cuda.mem_get_info()[0]
        return 2.0**30

    def peak(self, way: Way) -> float:
        """Bytes that one step holds at most beyond what was there; NaN on a CPU."""
        if self.device != "cuda":
            return float("nan")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way.step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
