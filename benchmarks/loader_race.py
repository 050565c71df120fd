"""What the benchmarks of the data path share: their command line, and how they end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import torch

from benchmarks import machine, report
from benchmarks.report import Goal, Table


def asked(about: str | None) -> argparse.Namespace:
    """OUT and --pace; everything runs on one thread from here on."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a table, times this")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return parser.parse_args()


def conclude(
    given: argparse.Namespace, name: str, title: str, tables: list[Table], goals: list[Goal]
) -> None:
    """Write the results; exits with 1 where a target is missed."""
    facts = machine.facts()
    name = f"{name}_{machine.slug()}_{facts['date']}"
    title = f"{title}, {facts['date']}"
    report.write(given.out, name, title, facts, [report.goals_table(goals), *tables])
    print("\n".join(" | ".join(goal.row().values()) for goal in goals))
    print(f"{given.out / name}.md")
    sys.exit(not all(goal.met for goal in goals))
