"""Evaluation rows over ranks, in order: equal shares, equal batches, worker threads ahead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from lightning_rad.data.batch import Submit, worker_threads
from lightning_rad.randomness import hash64

_AHEAD: Final = 2

Ints = npt.NDArray[np.int64]
Batch = TypeVar("Batch")


def chosen(purpose: str, numbers_N: Ints, most: int | None) -> Ints:
    """At most so many of some ascending numbers, ascending: the same on every call and rank."""
    if most is None or most >= len(numbers_N):
        return numbers_N
    return np.sort(numbers_N[np.argsort(hash64(purpose, numbers_N), kind="stable")[:most]])


def share_of(numbers_N: Ints, rank: int, ranks: int) -> Ints:
    """A rank's contiguous share; the first numbers are repeated so that all are of one length."""
    share = math.ceil(len(numbers_N) / ranks)
    return np.resize(numbers_N, share * ranks)[rank * share : (rank + 1) * share]


def in_batches(
    numbers_N: Ints,
    size: int,
    begin: Callable[[Ints, Submit], tuple[Batch, list[Future[Any]]]],
    *,
    threads: int,
) -> Iterator[Batch]:
    """What `begin` makes of so many numbers at a time, once its tasks are done, in order."""
    waiting = iter([numbers_N[i : i + size] for i in range(0, len(numbers_N), size)])
    with worker_threads(threads) as submit:
        begun = [begin(part, submit) for part in islice(waiting, _AHEAD)]
        while begun:
            batch, tasks = begun.pop(0)
            for task in tasks:
                task.result()
            yield batch
            begun += [begin(part, submit) for part in islice(waiting, 1)]
