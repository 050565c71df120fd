"""Whole training steps on one NVIDIA card, each speed switch alone and those that pay together.

    python -m benchmarks.gpu.steps OUT [--seconds 420] [--device cpu --tiny]

Each row is a fit by Lightning's Trainer: batch hooks, forward, loss, backward, optimiser, twin; the
batch lies on the card, so that no loader is measured (a run logs its own `throughput/data_wait`).
OUT/steps_<card>_<date>.json and .md are written after every row; no row is begun after the given
seconds, and 30 s later the process ends itself, whatever it hangs in. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import statistics
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine, report
from benchmarks.gpu.step_cases import Case, build, cases
from benchmarks.report import Table
from lightning_rad.schema import ViewBatch
from lightning_rad.training import block_calls
from lightning_rad.training.speed import Speed

PEAKS = {  # TFLOP/s without sparsity, of NVIDIA's data sheets: 16 bits, tf32, float32
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100": (989.0, 494.5, 67.0),
    "H200": (989.0, 494.5, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "L40S": (362.0, 183.0, 91.6),
}
COLUMNS = ["objective", "switch", "units", "ms a step", "images/s", "of eager bf16", "MFU", "GiB"]
WARM, MOST = 4, 40
"""Steps before and at most while the clock runs."""


def batch_of(units: int, size: int, device: str) -> ViewBatch:
    views = torch.randn(2, units, 1, size, size, device=device)
    unit = torch.arange(units, device=device)
    return ViewBatch(views, unit, torch.zeros_like(unit), unit.expand(2, units))


class Repeated(LightningDataModule):
    """One batch, as often as it is asked for."""

    gives = frozenset({"views", "unit", "patient", "image"})
    unit, images = "image", "distinct"

    def __init__(self, batch: ViewBatch, size: int) -> None:
        super().__init__()
        self._batch, self.global_batch = batch, len(batch.unit)
        self.views = [SimpleNamespace(size=size)] * 2

    def train_dataloader(self) -> Any:
        return _Loader(self._batch)


@dataclass
class _Loader:
    batch: ViewBatch

    def __len__(self) -> int:
        return WARM + MOST

    def __iter__(self) -> Iterator[ViewBatch]:
        return iter([self.batch] * len(self))


class Clock(Callback):
    """Seconds from the end of a step to that of the next, the device having done them."""

    def __init__(self, device: str, seconds: float, until: float) -> None:
        self._device, self._seconds, self._until = device, seconds, until
        self._marks: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._marks.append(time.monotonic())
        timed = self._marks[WARM - 1 :]
        long = timed and timed[-1] - timed[0] > self._seconds and len(timed) > 3
        trainer.should_stop = bool(long) or time.monotonic() > self._until

    @property
    def steps(self) -> list[float]:
        timed = self._marks[WARM - 1 :]
        return [b - a for a, b in pairwise(timed)]


def flops_a_unit(case: Case, tiny: bool, device: str) -> float:
    """Of forward and backward, twin and heads too, counted on four units without any switch."""
    objective = build(Case(case.kind, ""), tiny).to(device)
    counter = FlopCounterMode(display=False)
    with counter:
        embeddings = objective.embed(batch_of(4, 32 if tiny else 224, device))
        torch.stack([e.sum() for e in embeddings.values() if e.requires_grad]).sum().backward()
    return counter.get_total_flops() / 4


def measure(case: Case, asked: argparse.Namespace, units: int) -> tuple[int, list[float], float]:
    """Units of a step, halved until they fit; seconds of its steps; GiB at most."""
    size = 32 if asked.tiny else 224
    while True:
        try:
            return units, *_fit(case, asked, units, size)
        except torch.OutOfMemoryError:
            if units < 16:
                raise
            units //= 2
        gc.collect()
        torch.cuda.empty_cache()


def _fit(case: Case, asked: argparse.Namespace, units: int, size: int) -> tuple[list[float], float]:
    strategy: Any = "auto"
    if case.sharded:
        from lightning_rad.training.strategies import Sharded  # noqa: PLC0415 - fails alone

        strategy = Sharded()
    clock = Clock(asked.device, 0.05 if asked.tiny else 3.0, asked.until)
    trainer = Trainer(
        accelerator="gpu" if asked.device == "cuda" else "cpu",
        devices=1,
        strategy=strategy,
        precision=case.precision,  # type: ignore[arg-type]
        max_epochs=1,
        benchmark=asked.device == "cuda",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[clock, Speed(**case.speed)],
    )
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batch = batch_of(units, size, asked.device)
    trainer.fit(build(case, asked.tiny), datamodule=Repeated(batch, size))
    peak = torch.cuda.max_memory_allocated() / 2**30 if asked.device == "cuda" else float("nan")
    return clock.steps, peak


def peak_flops(case: Case, device: str) -> float | None:
    """FLOP/s of the card in the precision of the products; None where it is not known."""
    if device != "cuda":
        return None
    name = torch.cuda.get_device_name()
    found = next((peaks for card, peaks in PEAKS.items() if card in name), None)
    kind = 0 if "16" in case.precision else 1 if case.speed.get("tf32") else 2
    return found[kind] * 1e12 if found else None


def row_of(
    case: Case, units: int, steps: list[float], peak: float, flops: float, device: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """What is shown and what is kept. Images are views: two a unit."""
    seconds = statistics.median(steps)
    most = peak_flops(case, device)
    mfu = flops * units / seconds / most if most else None
    shown = {
        "objective": case.kind,
        "switch": case.switch,
        "units": str(units),
        "ms a step": f"{1e3 * seconds:.1f}",
        "images/s": f"{2 * units / seconds:.0f}",
        "MFU": f"{mfu:.1%}" if mfu else "",
        "GiB": "" if math.isnan(peak) else f"{peak:.1f}",
    }
    kept = {"steps_s": steps, "flops_a_unit": flops, "peak_flops": most, "mfu": mfu}
    return shown, kept | {"kind": case.kind, "switch": case.switch, "units": units}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--units", type=int, default=256, help="of a step, halved until they fit")
    parser.add_argument("--tiny", action="store_true", help="sizes of a smoke test")
    asked = parser.parse_args(arguments)
    asked.until = time.monotonic() + asked.seconds
    guard = threading.Timer(asked.seconds + 30, os._exit, [3])
    guard.daemon = True
    guard.start()
    compiler = "eager" if asked.tiny else block_calls.COMPILER  # the smoke test only traces
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            patch.object(block_calls, "COMPILER", compiler),
        ):
            run(asked)
    finally:
        guard.cancel()


def run(asked: argparse.Namespace) -> None:
    """A row a case, written at once; one that fails tells why in its place."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    table = Table("Training steps", COLUMNS, note="Images are views, two a unit. GiB: at most.")
    flops: dict[str, float] = {}
    eager: dict[str, float] = {}
    for case in cases():
        row = {"objective": case.kind, "switch": case.switch}
        table.rows.append(row)
        if time.monotonic() > asked.until:
            row["ms a step"] = "no time left"
            continue
        try:
            if case.kind not in flops:
                flops[case.kind] = flops_a_unit(case, asked.tiny, asked.device)
            units, steps, peak = measure(case, asked, 8 if asked.tiny else asked.units)
            shown, kept = row_of(case, units, steps, peak, flops[case.kind], asked.device)
            row.update(shown)
            pace = units / statistics.median(steps)
            row["of eager bf16"] = f"{pace / eager.setdefault(case.kind, pace):.2f}"
            table.details.append(kept)
        except Exception as error:  # the next row is still wanted
            told = (str(error).splitlines() or [""])[0]
            row["ms a step"] = f"fails: {type(error).__name__}: {told}"
        print(" | ".join(row.get(column, "") for column in COLUMNS), flush=True)
        write(asked, table)
        gc.collect()
        if asked.device == "cuda":
            torch.cuda.empty_cache()
    write(asked, table)


def write(asked: argparse.Namespace, table: Table) -> None:
    facts = machine.facts(asked.device)
    name = f"steps_{machine.slug(asked.device)}_{facts['date']}"
    report.write(asked.out, name, f"Training steps on a card, {facts['date']}", facts, [table])


if __name__ == "__main__":
    main()
