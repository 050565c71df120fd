"""The real stream over the large set: its first batch, anywhere, and a long run."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.scale_growth import Meter, Steps, status
from benchmarks.streams import opened, stream_over
from lightning_rad.data.settings import Shuffle
from lightning_rad.data.stream import Stream
from lightning_rad.storage.settings import Remote

BATCH = 256
SHUFFLE = Shuffle(seed=1)
EVERY = 2_048
"""Images between two looks at the memory."""


def planned(folder: str, meter: Meter) -> Stream:
    """The stream of one rank of one, threads and batches ahead as by default."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with meter.step("manifest"):
        sets = opened(folder, Remote(), SHUFFLE)
    with meter.step("index and units"):
        return stream_over(sets, SHUFFLE, BATCH)


def first_batch(folder: str, part: float, epoch: int) -> Steps:
    """The steps to the first batch, from a part of a data epoch on."""
    meter = Meter()
    stream = planned(folder, meter)
    position = (epoch + part) * len(stream.parts[0].units)
    with meter.step("first batch"):
        next(stream.batches((int(position) // BATCH * BATCH,)))
    return meter.steps


def long_run(folder: str, images: int) -> dict[str, Any]:
    """So many images, half of them behind the seam of two data epochs.

    looks: after so many images the seconds, CPU seconds and MiB held. waits: seconds for each
    batch. epoch: of the last image.
    """
    stream = planned(folder, Meter())
    begin = (len(stream.parts[0].units) - images // 2) // BATCH * BATCH
    coming = stream.batches((begin,))
    next(coming)
    wall, cpu = time.perf_counter(), time.process_time()
    looks, waits, seen = [], [], 0
    while seen < images:
        asked = time.perf_counter()
        batch = next(coming)
        waits.append(time.perf_counter() - asked)
        seen += len(batch.unit)
        if seen % EVERY < BATCH:
            now = time.perf_counter() - wall, time.process_time() - cpu, status("VmRSS")
            looks.append((seen, *now))
    assert stream.reader.bad == 0, f"{stream.reader.bad} images were unreadable"
    return {"looks": looks, "waits": waits, "bytes": mean_bytes(stream)}


def mean_bytes(stream: Stream) -> float:
    """Of an image as it is stored."""
    return float(np.mean(stream.reader.sources[0].index.images["size"]))
