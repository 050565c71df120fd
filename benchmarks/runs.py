"""Whole runs of `lightning-rad`, each in processes of its own, and what they left behind."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


def pretrain(folder: Path, configs: Sequence[Path], settings: Mapping[str, object]) -> None:
    """`fit` and `validate` into a folder, whatever of it is to be done; exits where one fails.

    A run that has its result is not repeated, and one that was cut off goes on. Nothing is
    validated on the way, and every step is logged.
    """
    if (folder / "probe_val.json").is_file():
        return
    stack = [word for file in configs for word in ("-c", str(file))]
    settings = {"run": folder, "trainer.log_every_n_steps": 1, "trainer.max_epochs": -1} | dict(
        settings
    )
    settings |= {"trainer.check_val_every_n_epoch": 1000, "trainer.enable_progress_bar": "false"}
    stack += [f"--{key}={value}" for key, value in settings.items()]
    begun = any((folder / "checkpoints").glob("step-*"))
    goes_on = ["--ckpt_path=last"] if begun else []
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a") as output:
        for command in (["fit", *stack, *goes_on], ["validate", *stack, "--ckpt_path=last"]):
            whole = [sys.executable, "-m", "lightning_rad", *command]
            done = subprocess.run(whole, stdout=output, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                *_, reason = ["no output", *Path(output.name).read_text().splitlines()]
                sys.exit(f"{folder.name}: {command[0]} failed: {reason}; {output.name}")
    print(f"{folder.name}: done", flush=True)


def stack(objective: str, view: str, data: str = "demo") -> list[Path]:
    """The files of a run on synthetic shards and a CPU."""
    names = ("base", f"objective/{objective}", f"view/{view}", f"data/{data}", "scale/cpu")
    return [ROOT / "configs" / f"{name}.yaml" for name in names]


def settings_of(manifest: str, *, batch: int, steps: int, seed: int) -> dict[str, object]:
    """What every run of a comparison is told, one seed for all that is random in it."""
    settings = {"data.manifest": manifest, "data.global_batch": batch, "trainer.max_steps": steps}
    seeds = ("seed_everything", "data.shuffle.seed", "model.init_args.seed")
    return settings | dict.fromkeys(seeds, seed)


def narrow(**more: object) -> dict[str, object]:
    """The encoder, a ResNet, with half the channels and a quarter of the operations."""
    kwargs = {"channels": [32, 64, 128, 256]} | more
    return {"model.init_args.encoder.init_args.kwargs": json.dumps(kwargs)}


def changed(folder: Path, changes: Mapping[str, Any]) -> Path:
    """A file of settings to lay over others, in the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "changes.yaml"
    file.write_text(yaml.safe_dump(dict(changes)))
    return file


def results(out: Path, file: str = "probe_val.json") -> dict[str, dict[int, dict[str, Any]]]:
    """What `validate` wrote, by name and seed, of all runs in folders `<name>-<seed>`."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(out.glob(f"*/{file}")):
        name, _, seed = path.parent.name.rpartition("-")
        found.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    return found


def interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}, {estimate['high']:.3f})"


def mean_and_range(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f}, {max(values):.3f})"


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def seconds_a_step(folder: Path) -> str:
    """Median over the logged steps of the run."""
    if not (folder / "metrics.csv").is_file():
        return ""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    name = next((key for key in (rows or [{}])[0] if key.endswith("step_s")), None)
    values = [float(row[name]) for row in rows if name and row.get(name)]
    return f"{statistics.median(values):.2f}" if values else ""
