"""What launchers say in the environment: does it fit together, and is the master to be found?"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from lightning_rad.training.doctor.finding import Finding

Environment = Mapping[str, str]
Resolve = Callable[[str], list[str]]
"""Addresses of a name. Raises OSError."""

SLOW_NAMES: Final = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this is, of how many of its machine, and where they meet."""

    rank: int
    ranks: int
    nodes: int
    of_node: int
    address: str
    port: int


def host_name(environment: Environment) -> str:
    """What Slurm calls this machine, else what it calls itself."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def place(environment: Environment) -> Place | None:
    """What torchrun or srun said; None where this process is alone.

    Address and port are Lightning's choice under srun: MASTER_ADDR or the first node, MASTER_PORT
    or 15000 and the last four digits of the job.
    """
    given = environment.get
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, ranks = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        nodes = max(ranks // int(given("LOCAL_WORLD_SIZE", "1")), 1)
    elif "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        rank, ranks = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
        nodes = int(given("SLURM_STEP_NUM_NODES", "1"))
    else:
        return None
    hosts = given("SLURM_STEP_NODELIST") or given("SLURM_NODELIST", "127.0.0.1")
    address = given("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(hosts)
    port = given("MASTER_PORT") or 15000 + int(given("SLURM_JOB_ID", "0")[-4:])
    return Place(rank, ranks, nodes, -(-ranks // nodes), address, int(port)) if ranks > 1 else None


def slurm(environment: Environment, devices: int | None, gpus: int) -> list[Finding]:
    """Slurm's variables against each other, against --devices and the GPUs that are seen."""
    if "SLURM_JOB_ID" not in environment:
        return []
    nodes = int(
        environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_JOB_NUM_NODES", "1"))
    )
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1")))
    findings = []

    def say(level: str, value: str, remedy: str) -> None:
        assert level in ("warning", "failed")
        findings.append(
            Finding("failed" if level == "failed" else "warning", "Slurm", value, remedy)
        )

    shape = f"{tasks} tasks on {nodes} nodes"
    wanted = devices or gpus
    if tasks % nodes:
        say("failed", shape, "each node needs as many: srun --ntasks-per-node=N")
    elif wanted and tasks // nodes not in (1, wanted):
        remedy = f"one task a GPU (--ntasks-per-node={wanted}), or one a node with torchrun in it"
        say("failed", f"{shape}, {wanted} devices a node", remedy)
    if "SLURM_NTASKS" in environment and "SLURM_NTASKS_PER_NODE" not in environment:
        say(
            "warning", "--ntasks without --ntasks-per-node", "Lightning refuses it: give the latter"
        )
    if (name := environment.get("SLURM_JOB_NAME")) in ("bash", "interactive"):
        remedy = "Lightning takes such a job for an interactive one, of one process: sbatch -J NAME"
        say("warning", f"the job is called '{name}'", remedy)
    if (given := environment.get("SLURM_GPUS_ON_NODE", "0")).isdigit() and int(given) > gpus:
        remedy = "a rank finds its GPU among all of its node: --gpus-per-node, not --gpus-per-task"
        say("failed", f"{given} GPUs of this node are the job's, torch sees {gpus}", remedy)
    return findings or [Finding("ok", "Slurm", f"{shape}, job {environment['SLURM_JOB_ID']}")]


def _addresses(name: str) -> list[str]:
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})


def master(address: str, nodes: int, resolve: Resolve = _addresses) -> Finding:
    """Whether the name of rank 0's machine is known here, soon, and means the same elsewhere."""
    what, began = "MASTER_ADDR", time.monotonic()
    try:
        found = resolve(address)
    except OSError as error:
        remedy = "ranks would wait half an hour: export MASTER_ADDR=<an address all nodes know>"
        return Finding("failed", what, f"{address}: {error.strerror or error}", remedy)
    took = time.monotonic() - began
    value = f"{address} is {', '.join(found)}"
    if nodes > 1 and all(ipaddress.ip_address(x.split("%")[0]).is_loopback for x in found):
        remedy = "every node would look for rank 0 on itself: export MASTER_ADDR=<its real address>"
        return Finding("warning", what, value, remedy)  # where it is true, meeting fails
    if took > SLOW_NAMES:
        return Finding("warning", what, f"{value}, after {took:.1f} s", "the name server is slow")
    return Finding("ok", what, value)
