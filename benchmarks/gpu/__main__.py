"""One section of the benchmark on a card, or the report of all that were run.

    python -m benchmarks.gpu SECTION OUT [--seconds 60] [--device cpu --tiny]

A section writes OUT/parts/SECTION.json after every row, so that what is killed leaves what it had.
`report` makes OUT/gpu_<card>_<date>.json and .md of the parts. `gpu.sh` runs them all.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import accuracy, machine, report
from benchmarks.gpu import ceilings, correctness, losses, queues
from benchmarks.gpu.setting import Setting
from benchmarks.report import Table


def _accuracy(setting: Setting) -> Iterator[Table]:
    table = accuracy.measure(pairs=300 if setting.tiny else 512, device=setting.device)
    table.title = f"G4 {table.title}"
    yield table


def _updates(setting: Setting) -> Iterator[Table]:
    from benchmarks.gpu import updates  # noqa: PLC0415 - timm may be missing, which fails it alone

    yield from updates.run(setting)


SECTIONS: dict[str, Callable[[Setting], Iterator[Table]]] = {
    "ceilings": ceilings.run,
    "correctness": correctness.run,
    "simclr": losses.simclr,
    "pairs": losses.pairs,
    "queues": queues.run,
    "accuracy": _accuracy,
    "updates": _updates,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=[*SECTIONS, "report"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tiny", action="store_true", help="sizes of a smoke test")
    asked = parser.parse_args(arguments)
    if asked.section == "report":
        write_report(asked.out, asked.device)
        return
    setting = Setting(
        asked.out,
        asked.device,
        asked.tiny,
        time.monotonic() + asked.seconds,
        row_s=0.05 if asked.tiny else 3.0,
    )
    run(asked.section, setting)


def run(section: str, setting: Setting) -> None:
    """Every table as it grows into its part; an error, in short, into the part and the output."""
    part = setting.out / "parts" / f"{section}.json"
    part.parent.mkdir(parents=True, exist_ok=True)
    tables: list[Table] = []
    _save(part, tables, "cut off before it ended")
    problem = ""
    try:
        for table in SECTIONS[section](setting):
            tables = [*(t for t in tables if t is not table), table]
            _save(part, tables, "cut off before it ended")
    except Exception:  # the next section is still wanted
        problem = " ... ".join(traceback.format_exc(limit=-2).splitlines()[-5:])
        setting.say(f"{section} fails: {problem}")
    _save(part, tables, problem)
    setting.say(f"{section} ended")


def _save(part: Path, tables: list[Table], problem: str) -> None:
    content = {"problem": problem, "tables": [asdict(table) for table in tables]}
    part.write_text(json.dumps(content))


def write_report(out: Path, device: str) -> None:
    """One JSON and one markdown of all parts, in the order of the sections."""
    facts, tables = machine.facts(device), []
    for section in SECTIONS:
        part = out / "parts" / f"{section}.json"
        nothing = '{"problem": "was not run", "tables": []}'
        content = json.loads(part.read_text() if part.is_file() else nothing)
        tables += [Table(**table) for table in content["tables"]]
        if content["problem"]:
            facts[section] = content["problem"]
    name = f"gpu_{machine.slug(device)}_{facts['date']}"
    report.write(out, name, f"Kernels on a card, {facts['date']}", facts, tables)
    print(out / f"{name}.md")


if __name__ == "__main__":
    main()
