"""Full augmentation of a batch, each view with parameters of its own: ours, torchvision v2, kornia.

    python -m benchmarks.augmentation OUT [--device cuda] [--pace 1]

Random crop, turn and mirror, exposure, blur and grain as configs/view/two_view.yaml draws them.
Contenders take turns on the same images with the same parameters and must give the same views
first, up to what their antialiasing leaves; one that is not installed is left out by name. On a
CPU one thread and its own seconds. Writes OUT/augmentation_<machine>_<date>.json and .md; exits
with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import torch

from benchmarks import machine, report
from benchmarks.augmentation_ways import SIZE, Drawn, Way, Ways, drawn, ways_of
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from benchmarks.ways import told

SIDES = (320, 512, 1024)
BATCH = {"cpu": 16, "cuda": 256}
OURS = "render_device"
LEAST = {"torchvision v2": 3.0, "kornia, its antialiasing": 4.0, "kornia, our box averages": 4.0}
APART = 2.0
"""Greys that a way's views may be off on average: antialiasing differs, corners too."""
SECONDS = 20.0
COLUMNS = ["way", "views a second", "it / ours, time", "mean difference, greys"]
NOTE = f"""Views of {SIZE} x {SIZE}; median over rounds, then the median over rounds of the two
times in that round. Ours is one resample, of box averages; torchvision turns what it needs and then
resizes with a triangle, kornia warps once, after its own Gaussian or after box averages as ours.
No generator of random numbers is timed; grain is ready made for all but ours."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu", choices=list(BATCH))
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a table, times this")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tables, goals = [], []
    for side in SIDES:
        given = drawn(BATCH[asked.device], side)
        table, wanted = measured(side, given, asked.device, SECONDS * asked.pace)
        tables.append(table)
        goals += wanted
        print(table.markdown(), flush=True)
    facts = machine.facts(asked.device)
    name = f"augmentation_{machine.slug(asked.device)}_{facts['date']}"
    title = f"Full augmentation on {asked.device}, {facts['date']}"
    report.write(asked.out, name, title, facts, [report.goals_table(goals), *tables])
    print("\n".join(" | ".join(goal.row().values()) for goal in goals))
    print(f"{asked.out / name}.md")
    sys.exit(not all(goal.met for goal in goals))


def measured(side: int, given: Drawn, device: str, seconds: float) -> tuple[Table, list[Goal]]:
    """The ways whose views are ours, timed; the others with a reason."""
    ways = ways_of(given, device)
    wanted = _gone(ways["render_cpu"])
    apart: dict[str, float] = {}
    for name, way in ways.items():
        if isinstance(way, str):
            continue
        try:
            apart[name] = float((_gone(way) - wanted).abs().mean())
        except Exception as error:  # whatever it is, the others are still to be timed
            ways[name] = f"fails: {told(error)}"
            continue
        if apart[name] > (0.01 if name.startswith(OURS) else APART):
            ways[name] = f"other views: {apart[name]:.1f} greys off"
    calls = {name: way for name, way in ways.items() if not isinstance(way, str)}
    times = race(calls, seconds=seconds, device=device, clock=time.process_time)
    title = f"Images of {side} x {side}, {len(given.boxes)} a batch"
    return _table(title, ways, times, apart, len(given.boxes)), [
        Goal(f"{side}: {name} / ours", least, times[name].over(times[OURS]))
        for name, least in LEAST.items()
        if name in times
    ]


def _gone(way: Way | str) -> torch.Tensor:
    if isinstance(way, str):
        raise RuntimeError(way)
    return way().cpu().float()


def _table(
    title: str, ways: Ways, times: dict[str, Times], apart: dict[str, float], many: int
) -> Table:
    table = Table(title, COLUMNS, note=NOTE)
    for name, way in ways.items():
        row = {COLUMNS[0]: name, COLUMNS[1]: way if isinstance(way, str) else ""}
        if name in times:
            row[COLUMNS[1]] = f"{many / times[name].median:,.0f}"
            row[COLUMNS[2]] = f"{times[name].over(times[OURS]):.2f}"
            row[COLUMNS[3]] = f"{apart[name]:.2f}"
        table.rows.append(row)
    table.details = [{"way": name, "seconds": spent.summary()} for name, spent in times.items()]
    return table


if __name__ == "__main__":
    main()
