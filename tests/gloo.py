"""Run a function on several gloo processes of this machine, in a pool that tests share."""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_context = get_context("forkserver")
_context.set_forkserver_preload(["torch", "torch.distributed"])
_jobs = itertools.count()
_workers: list[tuple[ForkServerProcess, connection.Connection]] = []


class RankError(Exception):
    """Where a rank failed: the cause of the exception that `run_on_ranks` raises."""


def run_on_ranks(
    fn: Callable[..., Any], world_size: int, *args: Any, timeout: float = 60.0
) -> list[Any]:
    """Call fn(*args) in `world_size` processes of one gloo group; the results in rank order.

    fn: a function of a module (it is pickled by name). Arguments and results are pickled; tensors
    are copied. Every process runs one torch thread. The processes are reused by later calls:
    whatever global state fn needs (seeds, default dtype) it sets itself. The first exception of
    any rank is raised here with that rank's traceback as its cause, and a call that outlasts
    `timeout` seconds raises TimeoutError; both end the processes.
    """
    job = pickle.dumps((fn, args))
    while len(_workers) < world_size:
        _workers.append(_start_worker())
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / f"store-{next(_jobs)}"
        for rank, (_, pipe) in enumerate(_workers[:world_size]):
            pipe.send((rank, world_size, store.as_uri(), timeout, job))
        try:
            return _collect(world_size, time.monotonic() + timeout)
        except BaseException:
            stop_workers()
            raise


def stop_workers() -> None:
    """End the pool's processes; the next call starts new ones."""
    while _workers:
        process, pipe = _workers.pop()
        process.kill()
        process.join()
        process.close()
        pipe.close()


def _start_worker() -> tuple[ForkServerProcess, connection.Connection]:
    here, there = _context.Pipe()
    process = _context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    there.close()
    return process, here


def _collect(world_size: int, deadline: float) -> list[Any]:
    waiting = {pipe: rank for rank, (_, pipe) in enumerate(_workers[:world_size])}
    results: list[Any] = [None] * world_size
    while waiting:
        ready = connection.wait(list(waiting), timeout=deadline - time.monotonic())
        if not ready:
            raise TimeoutError(f"ranks {sorted(waiting.values())} did not answer in time")
        for pipe in ready:
            assert isinstance(pipe, connection.Connection)
            rank = waiting.pop(pipe)
            results[rank] = _receive(pipe, rank)
    return results


def _receive(pipe: connection.Connection, rank: int) -> Any:
    try:
        error, value = pickle.loads(pipe.recv_bytes())
    except EOFError:
        raise RankError(f"rank {rank} died without a word") from None
    if error is not None:
        raise error from RankError(f"on rank {rank}:\n{value}")
    return value


def _serve(pipe: connection.Connection) -> None:
    """What a worker does: jobs from the pipe, one answer (error, value or traceback) each."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    while True:
        try:
            rank, world_size, store, timeout, job = pipe.recv()
        except EOFError:
            return
        pipe.send_bytes(_answer(rank, world_size, store, timeout, job))


def _answer(rank: int, world_size: int, store: str, timeout: float, job: bytes) -> bytes:
    try:
        fn, args = pickle.loads(job)
        limit = timedelta(seconds=timeout)
        dist.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world_size, timeout=limit
        )
        value = fn(*args)
        dist.barrier()  # nobody leaves while another still talks
        dist.destroy_process_group()
        return pickle.dumps((None, value))
    except Exception as error:
        return _pickle_error(error, traceback.format_exc())


def _pickle_error(error: Exception, trace: str) -> bytes:
    try:
        answer = pickle.dumps((error, trace))
        pickle.loads(answer)
    except Exception:
        return pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return answer


Finalize(None, stop_workers, exitpriority=10)
