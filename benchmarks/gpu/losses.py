"""G1 and G2: NT-Xent, CLIP and the sigmoid of pairs on bfloat16 rows, ours and the others.

"dense" multiplies in bfloat16 and sums in float32, what autocast makes of the plain formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu import floors, rivals
from benchmarks.gpu.setting import Setting
from benchmarks.problems import PROBLEMS
from benchmarks.report import Table
from benchmarks.timing import race
from benchmarks.ways import Way, Ways, agreeing, compiled, present, reasons, told

Floor = Callable[..., tuple[float, float]]
BYTES_AN_ELEMENT = 24.0
"""What a dense step holds at its peak for an element of the matrix: logits, softmax, gradients."""
DENSE = ("dense", "definition", "lightly", "open_clip")
LARGEST = {"lightly": 8192}
COLUMNS = ["loss", "shape", "way", "ms (best)", "times ours", "MiB", "of the floor"]
NOTE = """Forward and backward unless it says forward; median of rounds in which contenders take
turns, the cache written over before each call; MiB beyond the rows, their gradient included. Of
the floor: the floor of `floors.py` at the ceilings of G0 over the median."""

SIMCLR = [(4096, 128), (16384, 128), (65536, 128), (16384, 256), (65536, 1024), (512, 128)]
SIMCLR += [(65536, 256), (16384, 512), (16384, 1024), (65536, 512), (4096, 256), (4096, 512)]
SIMCLR += [(4096, 1024), (8192, 128), (32768, 128), (2048, 128), (1024, 128), (512, 256)]
SIMCLR += [(512, 512), (512, 1024), (1024, 512), (32768, 256)]
COMPILED = [(512, 128), (4096, 128), (16384, 128)]
CLIP = [(32768, 512), (65536, 768), (4096, 512), (16384, 512)]
SIGMOID = [(65536, 768), (16384, 768)]


def simclr(setting: Setting) -> Iterator[Table]:
    """G1, the most telling sizes first."""
    table = Table("G1 SimCLR", COLUMNS, note=NOTE)
    for shape in [(300, 24)] if setting.tiny else SIMCLR:
        if setting.over:
            break
        ways = _ways(setting, "NT-Xent", shape)
        dense = ways["dense"]
        if (shape in COMPILED or setting.tiny) and isinstance(dense, Way):
            loss = dense.loss
            ways["compiled dense"] = compiled(loss, *dense.leaves, backend=setting.compiler)
        ways |= rivals.flex(ways, setting, *shape)
        yield from _rows(setting, table, "NT-Xent", shape, ways, floors.two_views)
    yield _ended(setting, table, SIMCLR)


def pairs(setting: Setting) -> Iterator[Table]:
    """G2: CLIP against open_clip and Inf-CL, sigmoid against open_clip and siglip-kernel."""
    table = Table("G2 Images and texts", COLUMNS, note=NOTE)
    both: list[tuple[str, list[tuple[int, int]], Floor]] = [
        ("CLIP", CLIP, floors.two_sides),
        ("sigmoid", SIGMOID, floors.sigmoid),
    ]
    for problem, shapes, floor in both:
        for shape in [(300, 24)] if setting.tiny else shapes:
            if setting.over:
                break
            ways = _ways(setting, problem, shape)
            ways |= rivals.OF[problem](ways, *shape)
            yield from _rows(setting, table, problem, shape, ways, floor)
    yield _ended(setting, table, CLIP + SIGMOID)


def _ways(setting: Setting, problem: str, shape: tuple[int, int]) -> Ways:
    """What can be gone in the memory there is; the leaves of all are on the device."""
    ways = PROBLEMS[problem](*shape, device=setting.device, dtype=setting.dtype)
    elements = float(shape[0] * shape[0]) * (4 if problem == "NT-Xent" else 1)
    for name in DENSE:
        if elements * BYTES_AN_ELEMENT > setting.room() and name in ways:
            ways[name] = f"would hold about {elements * BYTES_AN_ELEMENT / 2**30:.0f} GiB"
        if name in ways and shape[0] > LARGEST.get(name, math.inf):
            ways[name] = f"left out above {LARGEST[name]} pairs"
    return ways


def _rows(
    setting: Setting, table: Table, problem: str, shape: tuple[int, int], ways: Ways, floor: Floor
) -> Iterator[Table]:
    """Agreement, times in turn, memory; a row for each way."""
    ways = agreeing(ways, "dense" if isinstance(ways["dense"], Way) else "ours")
    gone = present(ways)
    calls: dict[str, Callable[[], object]] = {name: way.step for name, way in gone.items()}
    if "ours" in gone:
        calls["ours, forward"] = torch.no_grad()(lambda: gone["ours"].loss(*gone["ours"].leaves))
    try:
        times = race(calls, seconds=setting.row_s, most=30, device=setting.device)
    except RuntimeError as error:
        reason = {name: f"fails in the race: {told(error)}" for name in calls}
        times, ways, gone = {}, {**ways, **reason}, {}
    forward, backward = floor(*shape, setting.ceilings())
    head = {"loss": problem, "shape": " x ".join(map(str, shape))}
    for name, spent in times.items():
        least = forward if "forward" in name else forward + backward
        mib = setting.peak(gone[name]) / 2**20 if name in gone else float("nan")
        told_by = {
            "way": name,
            "ms (best)": f"{1e3 * spent.median:.3f} ({1e3 * spent.best:.3f})",
            "times ours": f"{spent.over(times['ours']):.2f}" if "ours" in times else "",
            "MiB": "" if math.isnan(mib) else f"{mib:.0f}",
            "of the floor": f"{least / spent.median:.0%}",
        }
        table.rows.append(head | told_by)
        table.details.append(head | {"way": name, "seconds": spent.summary(), "floor": least})
    table.rows.extend(head | {"way": name, "ms (best)": why} for name, why in reasons(ways).items())
    for row in table.rows[-len(times) - len(reasons(ways)) :]:
        setting.say(" | ".join(row.values()))
    yield table


def _ended(setting: Setting, table: Table, shapes: list[tuple[int, int]]) -> Table:
    done = len({(row["loss"], row["shape"]) for row in table.rows})
    if setting.over:
        table.note += f" Ended by the section's time after {done} of {len(shapes)} sizes."
    return table
