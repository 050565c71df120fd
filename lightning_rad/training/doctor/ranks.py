"""Several doctors at once, a process a node or a GPU: their clocks, their network, one summary.

All goes through torch's store on rank 0's machine, as the start of a training run does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from os import environ
from typing import Any, Final, Protocol

import torch
import torch.distributed as dist

from lightning_rad.collectives import all_reduce_rates
from lightning_rad.training.doctor.bandwidth import REMEDIES, SIZES, judged
from lightning_rad.training.doctor.disk import SKEW
from lightning_rad.training.doctor.finding import Finding, graded
from lightning_rad.training.doctor.launch import Place, host_name

_PINGS: Final = 5


class Store(Protocol):
    """What is used of torch's stores: `get` waits until the key is there."""

    def get(self, key: str, /) -> bytes:
        """The value, once there is one."""

    def set(self, key: str, value: str, /) -> None:
        """Put a value."""


def meet(place: Place, limit: float) -> Any:
    """The store that all ranks share. Raises an error of torch's after `limit` seconds."""
    where = f"tcp://{place.address}:{place.port}?rank={place.rank}&world_size={place.ranks}"
    timeout = timedelta(seconds=limit)
    store, _, _ = next(iter(dist.rendezvous(where, timeout=timeout)))  # type: ignore[attr-defined]
    store.set_timeout(timeout)
    return dist.PrefixStore("doctor", store)  # type: ignore[attr-defined]


def offset(
    store: Store, rank: int, ranks: int, clock: Callable[[], float] = time.time
) -> tuple[float, float]:
    """Seconds by which rank 0's clock is ahead of this one's, and how far off that may be.

    Rank 0 tells its time to each rank in turn; half of the quickest round trip is the bound
    (Cristian's algorithm). 0 and 0 on rank 0. Every rank has to call it.
    """
    if rank == 0:
        for other in range(1, ranks):
            store.set(f"go-{other}", "")
            for turn in range(_PINGS):
                store.get(f"ask-{other}-{turn}")
                store.set(f"tell-{other}-{turn}", repr(clock()))
        return 0.0, 0.0
    store.get(f"go-{rank}")
    trips = []
    for turn in range(_PINGS):
        before = clock()
        store.set(f"ask-{rank}-{turn}", "")
        theirs = float(store.get(f"tell-{rank}-{turn}"))
        after = clock()
        trips.append((after - before, theirs - (before + after) / 2))
    trip, ahead = min(trips)
    return ahead, trip / 2


def clock_finding(ahead: float, bound: float) -> Finding:
    """A clock that is off by more than its measurement may be."""
    off = abs(ahead) - bound > SKEW
    value = f"{ahead:+.3f} s of rank 0's from this one's, give or take {bound:.3f}"
    remedy = "logs and the age of files will mislead: let NTP set the clocks (chronyc tracking)"
    return graded("clock between nodes", value, warning=remedy if off else "")


def together(place: Place, device: torch.device, store: Any, limit: float) -> Finding:
    """The all-reduce of all ranks. Leaves no process group behind."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    what = f"all-reduce of {place.ranks} ranks ({backend})"
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo",
            store=dist.PrefixStore("group", store),  # type: ignore[attr-defined]
            rank=place.rank,
            world_size=place.ranks,
            timeout=timedelta(seconds=limit),
        )
        return judged(what, backend, all_reduce_rates(SIZES, device))
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding("failed", what, told, REMEDIES[backend])
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def report(store: Store, place: Place, findings: Sequence[Finding]) -> list[dict[str, Any]] | None:
    """What every rank found, on rank 0, by rank; None elsewhere. Every rank has to call it."""
    mine = {"host": host_name(environ), "findings": [asdict(f) for f in findings]}
    store.set(f"report-{place.rank}", json.dumps(mine))
    if place.rank:
        return None
    return [json.loads(store.get(f"report-{rank}")) for rank in range(place.ranks)]


def part(store: Store, place: Place) -> None:
    """Leave, rank 0 last: the store dies with it. Every rank has to call it."""
    store.set(f"bye-{place.rank}", "")
    if place.rank == 0:
        for rank in range(place.ranks):
            store.get(f"bye-{rank}")
