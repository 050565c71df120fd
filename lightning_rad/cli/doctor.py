"""`lightning-rad doctor`: what is wrong with this machine, before a run finds out."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_rad.training.doctor import Asked, Finding, examine, summary, worst
from lightning_rad.training.doctor.launch import host_name, place


def doctor(arguments: list[str]) -> None:
    """Print a line a finding: ok, warning or failed, what, value, remedy. Exit status 1 if failed.

    Under srun or torchrun every process prints its own, after the name of its machine, and rank 0
    a summary.
    """
    parser = ArgumentParser(
        prog="lightning-rad doctor",
        description="Look at this machine, or with srun or torchrun at all, before a run does.",
    )
    usual = Asked()
    parser.add_argument("--manifest", type=Path | None, help="shard folder: is it read, how fast")
    parser.add_argument("--run", type=Path, default=usual.run, help="folder that runs go to")
    parser.add_argument("--threads", type=int, default=usual.threads, help="data.loading.threads")
    parser.add_argument("--devices", type=int | None, help="trainer.devices; default the GPUs seen")
    parser.add_argument(
        "--limit", type=float, default=usual.limit, help="seconds to wait for ranks"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    given = parser.parse_args(arguments)
    as_json = given.pop("json")
    asked = Asked(**given.as_dict())
    if asked.threads < 0 or (asked.devices is not None and asked.devices < 1):
        raise ValueError("doctor: --threads must be at least 0 and --devices at least 1")
    findings, reports = examine(asked)
    _print(findings, reports, as_json=as_json)
    told = [Finding(**f) for report in reports or [] for f in report["findings"]]
    sys.exit(1 if worst([*findings, *told]) == "failed" else 0)


def _print(
    findings: list[Finding], reports: list[dict[str, object]] | None, *, as_json: bool
) -> None:
    """In one write, for the lines of several processes meet in one output."""
    here = host_name(os.environ)
    if as_json:
        body = {"host": here, "worst": worst(findings), "findings": [asdict(f) for f in findings]}
        lines = [json.dumps(body | ({"ranks": reports} if reports else {}))]
    else:
        several = place(os.environ) is not None
        lines = [f"{here}: {finding}" if several else str(finding) for finding in findings]
        lines += [f"all: {line}" for line in summary(reports)] if reports else []
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
