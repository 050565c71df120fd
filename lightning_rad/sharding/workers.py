"""Many processes that each write whole shards, and die when the one that started them does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing.connection import wait as wait_for
from multiprocessing.sharedctypes import Synchronized

import cv2

from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.plan import Job
from lightning_rad.sharding.write import Bench, write_shard


def write_shards(
    jobs: Sequence[Job], bench: Bench, workers: int, report: Callable[[int], None]
) -> Iterator[tuple[Job, ShardRecord]]:
    """Write the shards, yielding each with its record as it completes, in any order.

    report: called now and then with the number of images read so far. One worker means this
    process. Raises ValueError where a worker dies.
    """
    if workers > 1:
        yield from _write_apart(jobs, bench, workers, report)
        return
    read = count()
    for job in jobs:
        yield job, write_shard(job, bench, lambda: report(next(read) + 1))


def _write_apart(
    jobs: Sequence[Job], bench: Bench, workers: int, report: Callable[[int], None]
) -> Iterator[tuple[Job, ShardRecord]]:
    # The server imports everything once, before it has threads that a fork would lose.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    read = context.Value("q", 0)
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, context, _start_worker, (bench, read))
    try:
        waiting = {pool.submit(_write_one, job): job for job in jobs}
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            report(read.value)
            for future in done:
                yield waiting.pop(future), future.result()
    except BaseException as error:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        if isinstance(error, BrokenProcessPool):
            raise ValueError(
                "a worker process died (out of memory?); run the same command again to continue, "
                "with fewer --workers if it does so again"
            ) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_bench: Bench
_read: Synchronized[int]


def _start_worker(bench: Bench, read: Synchronized[int]) -> None:
    global _bench, _read  # a worker's state comes once, not with every job
    _bench, _read = bench, read
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _write_one(job: Job) -> ShardRecord:
    return write_shard(job, _bench, _count_image)


def _count_image() -> None:
    with _read.get_lock():
        _read.value += 1
