"""How far a build is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Meter:
    """Counts images and reports the rate and the time left, on stderr."""

    def __init__(self, title: str, total: int, *, already: int = 0, every: float = 10.0) -> None:
        self.title = title
        self.total = total
        self.already = already
        self.every = every
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._start = self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("images{task.fields[pace]}"),
                console=self._console,
            )
            self._bar.add_task(self.title, total=self.total, completed=self.already, pace="")
            self._bar.start()
        return self

    def show(self, done: int) -> None:
        """Report that `done` images of this run are behind us (those of earlier runs apart)."""
        now = time.monotonic()
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self.already + done, pace=self._pace(done))
        elif now - self._spoken >= self.every:
            self._spoken = now
            place = f"{self.already + done}/{self.total}"
            sys.stderr.write(f"{self.title}: {place} images{self._pace(done)}\n")

    def _pace(self, done: int) -> str:
        """Rate and time left; nothing while nothing is done that they could be told from."""
        if not done:
            return ""
        rate = done / max(time.monotonic() - self._start, 1e-9)
        left = (self.total - self.already - done) / rate
        return f", {rate:.0f}/s, {spoken(left)} left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def spoken(seconds: float) -> str:
    """A time to go as people say it: 50 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
