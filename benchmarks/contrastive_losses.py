"""Contrastive losses side by side on a CPU, against what is wanted of them.

    python -m benchmarks.contrastive_losses OUT [--curve]

Forward and backward; contenders take turns on the same rows and must agree first. Writes
OUT/contrastive_losses_<machine>_<date>.json and .md; exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import averages, curve, machine, report
from benchmarks.contests import (
    COLUMNS,
    CONTESTS,
    NOTE,
    SMALL,
    Contest,
    add,
    goals,
    held,
    never_slower,
    slowest,
)
from benchmarks.report import Goal, Table
from benchmarks.rows import T


def main() -> None:
    asked = _asked()
    begun = time.perf_counter()
    facts = machine.facts()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    tables, wanted = _measured(asked.only, asked.pace)
    if not any(table.rows for table in tables):
        titles = ", ".join(contest.title for contest in (*CONTESTS, *SMALL))
        sys.exit(f"--only: no line has '{asked.only}' in it; there are updates, memory, {titles}")
    if asked.curve:
        tables.append(curve.curve())
    facts |= {"seconds spent": f"{time.perf_counter() - begun:.0f}"}
    name = f"contrastive_losses_{machine.slug()}_{facts['date']}"
    tables = [report.goals_table(wanted), *(table for table in tables if table.rows)]
    report.write(asked.out, name, f"Contrastive losses on a CPU, {facts['date']}", facts, tables)
    missed = [goal for goal in wanted if not goal.met]
    print(f"{len(wanted) - len(missed)} of {len(wanted)} targets met, {facts['seconds spent']} s")
    print(f"{asked.out / name}.md")
    sys.exit(bool(missed))


def _measured(only: str, pace: float) -> tuple[list[Table], list[Goal]]:
    """Every table and what is wanted, of the lines asked for."""
    tables: list[Table] = []
    wanted: list[Goal] = []
    even: list[Goal] = []
    for title, contests in (("Losses", CONTESTS), ("Small batches", SMALL)):
        table, found, no_slower = _timed(f"{title}, t {T}", contests, only, pace)
        tables.append(table)
        wanted += found
        even += no_slower
    _tell(slowest(even))
    wanted += slowest(even)
    others: dict[str, Callable[[], tuple[Table, list[Goal]]]] = {
        "updates": partial(averages.measure, seconds=10 * pace),
        "memory": curve.footprint,
    }
    for name, measure in others.items():
        if only in name:
            table, found = measure()
            _tell(found)
            tables.append(table)
            wanted += found
    return tables, wanted


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--curve", action="store_true", help="growth to 65,536 pairs: 5 minutes")
    parser.add_argument("--only", default="", help="lines whose title has this, updates or memory")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a line, times this")
    return parser.parse_args()


def _timed(
    title: str, contests: list[Contest], only: str, pace: float
) -> tuple[Table, list[Goal], list[Goal]]:
    """The table, what is wanted of single sizes, and of each that it is no slower."""
    table, wanted, even = Table(title, COLUMNS, note=NOTE), [], []
    for contest in contests:
        if only not in contest.title:
            continue
        times, ways = held(contest, contest.seconds * pace)
        add(table, contest, times, ways)
        print(" | ".join(table.rows[-1].values()), flush=True)
        found = list(goals(contest, times))
        _tell(found)
        wanted += found
        even.append(never_slower(contest, times))
    return table, wanted, even


def _tell(goals: list[Goal]) -> None:
    for goal in goals:
        print("    " + " | ".join(goal.row().values()), flush=True)


if __name__ == "__main__":
    main()
