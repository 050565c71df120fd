"""Which form of an operation runs: an explicit argument, never a decision at import time."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal, get_args

import torch

Backend = Literal["auto", "reference", "fused"]
"""auto: the fastest form for the sizes at hand; reference: the dense definition; fused: never the
dense one."""

DENSE_LIMIT_MIB = 256
"""Largest float32 matrix of similarities that `auto` lets the dense form make."""

FUSED_ABOVE = {"cpu": 2**17, "cuda": 2**20, "nt_xent on cpu": 2**18, "clip on cpu": 2**18}
"""Similarities above which the fused form is the faster one, by type of device; a line of its own
for an operation that goes over them twice. On a CPU measured with one thread (docs/log.md), on
CUDA set where a dense step is no longer a matter of launches."""

log = logging.getLogger(__name__)


def choose(operation: str, backend: str, device: torch.device, rows: int, keys: int) -> bool:
    """Whether the fused form runs; `auto` is told once for each operation, device and answer.

    Raises ValueError for an unknown backend, for no rows or no keys, and where only a dense form
    above the limit is left.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend: '{backend}' is not one of {list(get_args(Backend))}")
    if rows < 1 or keys < 1:
        raise ValueError(f"{operation}: {rows} rows and {keys} keys; at least 1 of each is needed")
    if backend != "auto":
        return backend == "fused"
    least = FUSED_ABOVE.get(device.type, float("inf"))
    fused = rows * keys > FUSED_ABOVE.get(f"{operation} on {device.type}", least)
    if not torch.compiler.is_compiling():  # a line of a log would break the graph
        _tell(operation, device.type, fused)
    need_mib = rows * keys * 4 / 2**20
    if not fused and need_mib > DENSE_LIMIT_MIB:
        raise ValueError(
            f"backend: 'auto' refuses {rows} x {keys} similarities ({need_mib:.0f} MiB a copy, "
            f"limit {DENSE_LIMIT_MIB}) on {device.type}, for which there is no fused form; "
            "set backend 'reference' to allow them, or a smaller batch"
        )
    return fused


@cache
def _tell(operation: str, device: str, fused: bool) -> None:
    log.info("%s on %s: %s", operation, device, "fused" if fused else "dense")
