"""Everything that is looked at, in the order in which a run would stumble over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_rad.training.doctor import (
    bandwidth,
    devices,
    disk,
    host,
    launch,
    ranks,
    shards,
    software,
)
from lightning_rad.training.doctor.finding import Finding, worst


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to be given.

    manifest: shard folder. run: folder of the run. threads: that decode, a rank. devices: ranks of
    a machine; None is one a GPU, or one. limit: seconds that ranks wait for each other.
    """

    manifest: Path | None = None
    run: Path = Path("runs")
    threads: int = 4
    devices: int | None = None
    limit: float = 60.0


def examine(asked: Asked) -> tuple[list[Finding], list[dict[str, Any]] | None]:
    """What is found here, and on rank 0 of several what every rank found."""
    found = devices.find_gpus()
    place = launch.place(os.environ)
    others = place.of_node if place is not None else 1
    findings = list(_this_machine(asked, found, others))
    if place is None:
        findings.append(bandwidth.between_two(len(found.seen)))
        return findings, None
    named = launch.master(place.address, place.nodes)
    findings.append(named)
    if named.level == "failed":
        return findings, None
    return _with_others(asked, place, found, findings)


def _this_machine(asked: Asked, found: devices.Gpus, doctors: int) -> Iterator[Finding]:
    """doctors: processes of this machine that look at once; one may stand for all its ranks."""
    here = asked.devices or max(len(found.seen), doctors)
    yield from software.versions(software.installed(), software.asked_for())
    yield from devices.gpus(found, asked.devices)
    yield from launch.slurm(os.environ, asked.devices, len(found.seen))
    yield host.cores(host.find_cores(), threads=asked.threads, ranks=here)
    yield host.memory(host.find_memory(), ranks=here)
    yield host.shared_memory(here if found.seen else 0)
    yield host.open_files()
    yield software.triton() if found.seen else software.compiler()
    yield from _run_folder(asked.run)
    if asked.manifest is not None:
        yield from _shards(asked.manifest)


def _run_folder(run: Path) -> list[Finding]:
    try:
        return disk.run_disk(run, disk.measure(run))
    except OSError as error:
        remedy = "make it writable, or choose another --run"
        return [Finding("failed", f"writing {run}", error.strerror or str(error), remedy)]


def _shards(folder: Path) -> Iterator[Finding]:
    manifest, finding = shards.open_manifest(folder)
    yield finding
    if manifest is None:
        return
    yield shards.readable(manifest)
    try:
        files = [manifest.root / shard.file for shard in manifest.shards]
        reads = disk.measure_reads(files, list(shards.places(manifest)))
    except OSError as error:
        yield Finding("failed", f"reading {manifest.root}", error.strerror or str(error))
    else:
        yield disk.shard_reads(manifest.root, reads)


def _with_others(
    asked: Asked, place: launch.Place, found: devices.Gpus, findings: list[Finding]
) -> tuple[list[Finding], list[dict[str, Any]] | None]:
    """Clocks and network between ranks; rank 0 hears of everyone."""
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    gpu = local < len(found.seen)
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    try:
        store = ranks.meet(place, asked.limit)
        findings.append(ranks.clock_finding(*ranks.offset(store, place.rank, place.ranks)))
        findings.append(ranks.together(place, device, store, asked.limit))
        reports = ranks.report(store, place, findings)
        ranks.part(store, place)
    except Exception as error:  # torch has no one class for it
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        value = f"rank {place.rank} of {place.ranks}, at {place.address}:{place.port}: {told}"
        remedy = "is the port free and open between nodes? did every rank start?"
        return [*findings, Finding("failed", "meeting", value, remedy)], None
    return findings, reports


def summary(reports: list[dict[str, Any]]) -> list[str]:
    """What rank 0 says of all: hosts by the worst that was found, and what was not ok where."""
    lines, by_line = [], dict[str, list[str]]()
    for rank, report in enumerate(reports):
        for given in report["findings"]:
            finding = Finding(**given)
            if finding.level != "ok":
                by_line.setdefault(str(finding), []).append(f"{report['host']}:{rank}")
    for text, where in by_line.items():
        lines.append(f"{text} [{', '.join(where)}]")
    level = worst(Finding(**f) for report in reports for f in report["findings"])
    hosts = {report["host"] for report in reports}
    return [*lines, f"{level:<7}  {len(reports)} ranks on {len(hosts)} hosts"]
