"""What a start costs as a set grows: manifest, index, units and order, each size in a process."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rad.data.order import Ints, Order
from lightning_rad.data.units import units_of
from lightning_rad.manifest import load_index, load_manifest

BATCH = 1024
GROUPS = 64
WINDOW = 4096
BATCHES = 200
MIB = 2**20

Steps = dict[str, dict[str, float]]
"""Of each step: cpu and wall in seconds, and held and peak in MiB, more than before the first."""


class Meter:
    """Takes time and memory of one step after the other."""

    def __init__(self) -> None:
        self.steps: Steps = {}
        self._before = status("VmRSS")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.steps[name] = {
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
            "held": status("VmRSS") - self._before,
            "peak": status("VmHWM") - self._before,
        }


def status(entry: str) -> float:
    """An entry of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def measured(folder: str, most: float) -> Steps:
    """The steps of a start, of a resume and of a seam over a set; up to where memory ends.

    most: GiB of addresses that the process may have.
    """
    limit = int(most * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    meter = Meter()
    try:
        with meter.step("manifest"):
            manifest = load_manifest(folder)
        with meter.step("index"):
            index = load_index(manifest, manifest.of_split("train"))
        with meter.step("units"):
            units = units_of(index, "image")
        _orders(meter, units.shard)
    except MemoryError:
        meter.steps["memory ended"] = {}
    return meter.steps


def of_order(shards: int, per_shard: int, most: float) -> Steps:
    """The steps of an order alone, over shards of one size."""
    limit = int(most * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    meter = Meter()
    try:
        _orders(meter, np.repeat(np.arange(shards, dtype=np.int32), per_shard))
    except MemoryError:
        meter.steps["memory ended"] = {}
    return meter.steps


def _orders(meter: Meter, shard: Any) -> None:
    """One rank of one: it reads all groups, which no rank of several does."""

    def fresh() -> Order:
        return Order(shard, seed=1, groups=GROUPS, window=WINDOW)

    def batch(order: Order, position: int) -> Ints:
        return order.take(order.rows(position, BATCH, 0, 1))[1]

    with meter.step("order and first batch"):
        order = fresh()
        batch(order, 0)
    with meter.step(f"{BATCHES} batches"):
        for number in range(1, BATCHES + 1):
            batch(order, number * BATCH)
    del order
    late = int(0.9 * len(shard)) // GROUPS * GROUPS
    for epoch in (0, 7):
        with meter.step(f"order, 90 % of data epoch {epoch}"):
            order = fresh()
            batch(order, epoch * len(shard) // GROUPS * GROUPS + late)
    with meter.step("first batch of data epoch 8"):
        batch(order, 8 * len(shard) // GROUPS * GROUPS + GROUPS)


def alone(call: Any, *given: Any) -> Any:
    """What a function gives in a process of its own, so that memory is its alone."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *given).result()
