"""What a stream's batch is made of: which rows it has, and what worker threads put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.data.unrendered import Unrendered
from lightning_rad.schema import Findings, Gaze, Reports, ViewBatch

Ints = npt.NDArray[np.int64]
Submit = Callable[..., "Future[Any]"]


@dataclass(frozen=True, slots=True)
class Rows:
    """R rows of a batch: epoch, unit and patient are [R], image is [V, R]; numbers stream-wide."""

    epoch: Ints
    unit: Ints
    patient: Ints
    image: Ints

    def __len__(self) -> int:
        return len(self.unit)

    @staticmethod
    def interleave(tables: list[Rows], groups: int) -> Rows:
        """One table, group by group: the first group's rows of each table, then the second's."""

        def join(name: str) -> Ints:
            columns = [getattr(table, name) for table in tables]
            split = [c.reshape(*c.shape[:-1], groups, -1) for c in columns]
            return np.concatenate(split, axis=-1).reshape(*columns[0].shape[:-1], -1)

        return Rows(join("epoch"), join("unit"), join("patient"), join("image"))


@dataclass(slots=True)
class StreamBatch:
    """A rank's rows on their way to the device.

    pixels: [V, R, 1, H, W] uint8, or what they are to be rendered from. unit, patient: [R] int64.
    image: [V, R] int64. after: the positions that follow this batch, one a set. Where they are
    read: report, of the rows; findings and gaze, of each view. focus: [V, R] uint8 where a view is
    a focus view: what it had to make do with (`ViewParams.exhausted`), 0 of views that are none.
    """

    pixels: Tensor | Unrendered
    unit: Tensor
    patient: Tensor
    image: Tensor
    after: tuple[int, ...]
    report: Reports | None = None
    findings: Findings | None = None
    gaze: Gaze | None = None
    focus: Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = True) -> StreamBatch:
        """The same batch with its tensors on a device; what was drawn stays on the host."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=non_blocking)

        pixels = move(self.pixels) if isinstance(self.pixels, Tensor) else self.pixels.to(device)
        report = self.report and Reports(
            move(self.report.hash),
            move(self.report.flipped),
            {name: move(tokens) for name, tokens in self.report.tokens.items()},
        )
        known, gaze = self.findings, self.gaze
        return StreamBatch(
            pixels,
            move(self.unit),
            move(self.patient),
            move(self.image),
            self.after,
            report,
            known and Findings(move(known.labels), move(known.boxes), move(known.finding)),
            gaze and Gaze(move(gaze.map), move(gaze.points)),
            self.focus,
        )

    def shown(self, views: Tensor, *, greys: Tensor) -> ViewBatch:
        """What an objective gets: the views as numbers; with findings the greys they are of."""
        return ViewBatch(
            views=views,
            unit=self.unit,
            patient=self.patient,
            image=self.image,
            report=self.report,
            findings=self.findings,
            gaze=self.gaze,
            greys=None if self.findings is None else greys,
        )


@contextmanager
def worker_threads(threads: int) -> Iterator[Submit]:
    """A function that runs another one on a pool of threads, or at once where there are none.

    On leaving, work that has not begun is dropped. OpenCV is kept from starting threads of its own.
    """
    cv2.setNumThreads(1)
    if threads == 0:
        yield _at_once
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stream")
    try:
        yield pool.submit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _at_once(function: Callable[..., Any], *arguments: object) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(function(*arguments))
    except BaseException as error:  # handed to whoever asks for the result
        done.set_exception(error)
    return done
