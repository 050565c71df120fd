"""Disks: room and speed where a run is written, speed where shards are read."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightning_rad.training.doctor.finding import Finding, graded, size

MIB: Final = 1 << 20
LITTLE_ROOM: Final = 20 << 30
"""Bytes: some checkpoints of a ViT-L with its twin and optimiser (5 GB each)."""

NO_ROOM: Final = 2 << 30
SLOW_WRITES: Final = 50 * MIB
SLOW_FSYNC: Final = 0.1
SLOW_READS: Final = 100 * MIB
"""Bytes a second: a rank that takes 1,500 images of 60 KB a second reads 90 MB."""

SLOW_IMAGES: Final = 200
"""Images a second that one thread reads here and there."""

SKEW: Final = 1.0
"""Seconds by which the clock of a file system may differ from this machine's."""

_WRITTEN: Final = 64 * MIB
_READ: Final = 256 * MIB
_PLACES: Final = 200
_GRAIN: Final = 0.02
"""Seconds: kernels stamp files with a coarse clock."""


@dataclass(frozen=True, slots=True)
class Disk:
    """free: bytes. write, read: bytes a second. fsync: seconds, the median of a small file's.

    ahead: seconds by which the file system's clock is ahead of this machine's.
    """

    free: int
    write: float
    read: float
    fsync: float
    ahead: float


def measure(folder: Path, *, written: int = _WRITTEN) -> Disk:
    """Writes files of its own into a folder, or its nearest parent, and removes them.

    Raises OSError.
    """
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    room = os.statvfs(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as here:
        block = os.urandom(MIB)
        file = Path(here) / "file"
        began = time.perf_counter()
        with file.open("wb", buffering=0) as out:
            for _ in range(written // MIB):
                out.write(block)
            os.fsync(out.fileno())
        writing = time.perf_counter() - began
        reading = _read_through([file], written)
        waits, ahead = [], 0.0
        for number in range(9):
            small = Path(here) / f"small-{number}"
            before = time.time()
            began = time.perf_counter()
            with small.open("wb", buffering=0) as out:
                out.write(block[:4096])
                os.fsync(out.fileno())
            waits.append(time.perf_counter() - began)
            made = small.stat().st_mtime
            ahead = made - min(max(made, before - _GRAIN), time.time())
    return Disk(
        free=room.f_bavail * room.f_frsize,
        write=written / writing,
        read=reading,
        fsync=statistics.median(waits),
        ahead=ahead,
    )


def run_disk(folder: Path, found: Disk) -> list[Finding]:
    """The disk that checkpoints go to."""
    room = "" if found.free >= NO_ROOM else f"under {size(NO_ROOM)}: no checkpoint fits for long"
    little = "free some, or choose another --run" if found.free < LITTLE_ROOM else ""
    slow = []
    if found.write < SLOW_WRITES:
        slow.append("checkpoints hold the run up: another --run, or more minutes between them")
    if found.fsync > SLOW_FSYNC:
        slow.append("each flushed file waits: a local disk or a parallel file system is faster")
    speed = f"writes {size(found.write)}/s, reads {size(found.read)}/s"
    speed += f", fsync {found.fsync * 1e3:.3g} ms"
    off = abs(found.ahead) > SKEW
    return [
        graded(f"room in {folder}", f"{size(found.free)} free", failed=room, warning=little),
        graded(f"speed of {folder}", speed, warning="; ".join(slow)),
        graded(
            f"clock of {folder}",
            f"{found.ahead:+.2f} s from this machine's",
            warning="files would seem old or new: let NTP set both clocks" if off else "",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Reads:
    """sequential: bytes a second. images: single images a second, at random places, one thread."""

    sequential: float
    images: float


def measure_reads(
    files: Sequence[Path], images: Sequence[tuple[Path, int, int]], *, seed: int = 0
) -> Reads:
    """Read shards from the disk, not from memory where the kernel lets go of them.

    images: (file, offset, bytes) of single images. Raises OSError.
    """
    places = random.Random(seed).sample(list(images), min(_PLACES, len(images)))
    for file in {place[0] for place in places}:
        _forget(file)
    began = time.perf_counter()
    for file, offset, count in places:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        os.pread(descriptor, count, offset)
        os.close(descriptor)
    rate = len(places) / max(time.perf_counter() - began, 1e-9)
    return Reads(_read_through(files, _READ), rate)


def shard_reads(folder: Path, found: Reads) -> Finding:
    """The disk that shards come from."""
    slow = found.sequential < SLOW_READS or found.images < SLOW_IMAGES
    remedy = "copy the shards to a local disk of each node, or raise data.loading.threads"
    value = f"{size(found.sequential)}/s in sequence, {found.images:.0f} images/s at random places"
    return graded(f"reading {folder}", value, warning=remedy if slow else "")


def _read_through(files: Sequence[Path], most: int) -> float:
    """Bytes a second."""
    done, began = 0, time.perf_counter()
    for file in files:
        if done >= most:
            break
        _forget(file)
        with file.open("rb", buffering=0) as stream:
            while done < most and (data := stream.read(4 * MIB)):
                done += len(data)
    return done / max(time.perf_counter() - began, 1e-9)


def _forget(file: Path) -> None:
    """Ask the kernel to drop what it keeps of a file; it may not, on some file systems."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
