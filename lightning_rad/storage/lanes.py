"""A few threads that do what is asked for in order of need, and never keep a process from ending.

Not a ThreadPoolExecutor: its threads are joined when the interpreter ends, so a run that stops
would first fetch every shard that was still to come.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Lanes:
    """Runs functions on so many daemon threads, the lowest need first, then in order."""

    def __init__(self, lanes: int, name: str) -> None:
        self._lanes, self._name = lanes, name
        self._waiting: queue.PriorityQueue[tuple[float, int, Callable[[], None]]]
        self._waiting = queue.PriorityQueue()
        self._number = itertools.count()
        self._lock = threading.Lock()
        self._threads = 0

    def submit(self, need: float, do: Callable[[], Result]) -> Future[Result]:
        """Begin `do` when all that is needed earlier has begun; its result or error is kept."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(do())
            except BaseException as error:  # handed to whoever asks for the result
                future.set_exception(error)

        with self._lock:
            self._waiting.put((need, next(self._number), run))
            if self._threads < self._lanes:
                name = f"{self._name}-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._threads += 1
        return future

    def _work(self) -> None:
        while True:
            self._waiting.get()[2]()
