"""Contenders take turns, to and fro, so that a busy moment of the machine meets all of them.

On a CPU a sample is the mean of as many calls as take a few milliseconds; on a GPU it is the
median of single calls between two events, each after the cache was written over.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

Call = Callable[[], object]
Clock = Callable[[], float]
SAMPLE_S = 0.02
"""Least length of a sample on a CPU."""
FLUSH_BYTES = 2**28


@dataclass(frozen=True)
class Times:
    """Seconds a call took, one number a round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        return min(self.rounds)

    def summary(self) -> dict[str, float]:
        return {"median": self.median, "best": self.best, "rounds": len(self.rounds)}

    def over(self, other: Times) -> float:
        """How many times as long as the other: median over rounds of the two samples' ratio."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def race(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    least: int = 3,
    most: int = 100,
    device: str = "cpu",
    clock: Clock = time.perf_counter,
) -> dict[str, Times]:
    """Rounds until the seconds are spent, `least` of them in any case.

    clock: of a CPU sample; `time.process_time` for what one thread does, on a machine that is busy.
    """
    sample = _cuda_sample if device == "cuda" else partial(_cpu_sample, clock)
    repeats = {name: _repeats(call, device) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - begun > seconds:
            break
        for name in list(calls)[:: -1 if done % 2 else 1]:
            taken[name].append(sample(calls[name], repeats[name]))
    return {name: Times(rounds) for name, rounds in taken.items()}


def seconds_of(call: Call, device: str = "cpu") -> float:
    """One call, from the host's clock."""
    begun = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _repeats(call: Call, device: str) -> int:
    """How many calls fill a sample; the first two warm up."""
    seconds_of(call, device)
    once = min(seconds_of(call, device), seconds_of(call, device))
    return max(1, min(1000, round(SAMPLE_S / once)))


def _cpu_sample(clock: Clock, call: Call, repeats: int) -> float:
    begun = clock()
    for _ in range(repeats):
        call()
    return (clock() - begun) / repeats


def _cuda_sample(call: Call, repeats: int) -> float:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    spans = []
    for _ in range(min(repeats, 20)):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        start.record()
        call()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in spans) / 1000
