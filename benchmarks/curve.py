"""How NT-Xent's time and memory grow with the batch, on a CPU, a process for each size."""

from __future__ import annotations

import math
import statistics

from benchmarks.memory import measured
from benchmarks.report import Goal, Table

DIM = 128
PAIRS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
MIB_WANTED = 64
COMPARED = ("ours", "ours, bf16", "dense", "definition", "lightly")
BEYOND = """Of one step, forward and backward, beyond the rows and their gradient; the peak of a
fresh process."""


def footprint(pairs: int = 4096) -> tuple[Table, list[Goal]]:
    """Extra memory of each way at one size."""
    table = Table(f"Memory, NT-Xent {pairs} x {DIM}", ["way", "MiB"], note=BEYOND)
    for way in COMPARED:
        try:
            mib = measured("NT-Xent", way, pairs, DIM)["mib"]
        except RuntimeError as error:
            table.rows.append({"way": way, "MiB": str(error)})
            continue
        table.rows.append({"way": way, "MiB": f"{mib:.0f}"})
        table.details.append({"way": way, "mib": mib})
    goals = [
        Goal(f"{table.title}: extra of {at['way']}", MIB_WANTED, at["mib"], most=True, unit="MiB")
        for at in table.details
        if at["way"].startswith("ours")
    ]
    return table, goals


def curve(sizes: tuple[int, ...] = PAIRS) -> Table:
    """Seconds and MiB of ours at each size, and the exponents of their growth."""
    columns = ["pairs", "seconds", "MiB", "MiB of all rows", "bf16, seconds", "bf16, MiB"]
    table = Table(f"Growth, NT-Xent, {DIM} features", columns)
    for pairs in sizes:
        found = {way: measured("NT-Xent", way, pairs, DIM) for way in COMPARED[:2]}
        (wide, low), rows = found.values(), 2 * pairs * DIM * 4 / 2**20
        cells = [f"{pairs}", f"{wide['seconds']:.3g}", f"{wide['mib']:.0f}", f"{rows:.0f}"]
        cells += [f"{low['seconds']:.3g}", f"{low['mib']:.0f}"]
        table.rows.append(dict(zip(columns, cells, strict=True)))
        table.details.append({"pairs": pairs} | {way: dict(at) for way, at in found.items()})
        print(" | ".join(cells), flush=True)
    table.note = f"{BEYOND} {_growth(table, 'seconds', 4096)}. {_growth(table, 'mib', 8192)}."
    return table


def _growth(table: Table, quantity: str, least: int) -> str:
    """The exponent of growth with the pairs: the slope of a line through the logarithms."""
    points = [at for at in table.details if at["pairs"] >= least]
    if len(points) < 2:
        return f"Too few sizes from {least} pairs on to tell the growth of {quantity}"
    logs = [math.log(at["pairs"]) for at in points]
    slopes = []
    for way in COMPARED[:2]:
        values = [math.log(at[way][quantity]) for at in points]
        slopes.append(f"{statistics.linear_regression(logs, values).slope:.2f} ({way})")
    name = {"seconds": "time", "mib": "memory"}[quantity]
    return f"From {least} pairs on {name} grows as pairs to the power {' and '.join(slopes)}"
