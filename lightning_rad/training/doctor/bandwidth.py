"""An all-reduce between real processes: two of this machine, or all that were started."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist

from lightning_rad.collectives import all_reduce_rates
from lightning_rad.training.doctor.finding import Finding, graded, size

SIZES: Final = (1 << 20, 8 << 20, 64 << 20)
LEAST: Final = {"gloo": 0.1e9, "nccl": 5e9}
"""Bytes a second of the largest size: below it, GPUs of one box go through something slow."""


def between_two(gpus: int, *, limit: float = 120.0) -> Finding:
    """Two processes of this machine: NCCL on two GPUs where there are two, else gloo on the CPU."""
    backend = "nccl" if gpus >= 2 else "gloo"
    what = f"all-reduce of 2 processes ({backend})"
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(2):
            here, there = context.Pipe(duplex=False)
            where = (Path(folder) / "store").as_uri()
            process = context.Process(target=_serve, args=(there, rank, backend, where, limit))
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        try:
            answers = [_answer(pipe, limit) for pipe in pipes]
        finally:
            for process in processes:
                process.kill()
                process.join()
    trouble = next((a for a in answers if isinstance(a, str)), None)
    if trouble is not None:
        return Finding("failed", what, trouble, REMEDIES[backend])
    rates = answers[0]
    assert not isinstance(rates, str)
    return judged(what, backend, rates)


REMEDIES: Final = {
    "gloo": "name the network with GLOO_SOCKET_IFNAME; is `hostname` to be resolved?",
    "nccl": "look with NCCL_DEBUG=INFO; name the network with NCCL_SOCKET_IFNAME, NCCL_IB_HCA",
}


def judged(what: str, backend: str, rates: Mapping[int, float]) -> Finding:
    """rates: bytes -> bytes a second."""
    value = ", ".join(f"{size(n)} at {rate / 1e9:.2f} GB/s" for n, rate in rates.items())
    slow = rates[max(rates)] < LEAST[backend]
    return graded(what, value, warning=f"slow: {REMEDIES[backend]}" if slow else "")


def _answer(pipe: Connection, limit: float) -> dict[int, float] | str:
    if not pipe.poll(limit):
        return f"no answer in {limit:.0f} s"
    try:
        answer: dict[int, float] | str = pipe.recv()
    except EOFError:
        return "a process died"
    return answer


def _serve(pipe: Connection, rank: int, backend: str, where: str, limit: float) -> None:
    """What each of the two processes does."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        timeout = timedelta(seconds=limit)
        dist.init_process_group(backend, where, timeout=timeout, rank=rank, world_size=2)
        pipe.send(all_reduce_rates(SIZES, device))
        dist.destroy_process_group()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
