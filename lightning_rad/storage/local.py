"""Bytes of files of this machine, or of a file system it has mounted, by number and offset."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Final


class LocalFiles:
    """Reads ranges of some files, of which the last few stay open. Picklable; for many threads.

    most: files kept open at once; one in use by a thread, or of which a view is held, is closed
    only after that.
    """

    def __init__(self, paths: Sequence[Path], most: int) -> None:
        self._paths, self._most = tuple(paths), most
        self._lock = threading.Lock()
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def read(self, row: int, offset: int, size: int, *, mapped: bool = False) -> bytes | memoryview:
        """At most `size` bytes of a file; fewer where it ends. Raises OSError.

        A view of memory into which the file is mapped, read-only, which outlives this; where it
        lies on another machine a copy, unless `mapped`. A file that is cut short while it is mapped
        ends the process (SIGBUS), as does a server that goes away: shards are replaced by renaming,
        never written to.
        """
        with self._lock:
            if (file := self._open.get(row)) is None:
                file = self._open[row] = OpenFile(os.open(self._paths[row], FLAGS))
                if len(self._open) > self._most:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(row)
        return file.read(offset, size, mapped=mapped)

    def expect(self, rows: Iterable[int]) -> None:
        """Nothing: they are here."""

    def __reduce__(self) -> tuple[type[LocalFiles], tuple[tuple[Path, ...], int]]:
        return LocalFiles, (self._paths, self._most)


FLAGS = os.O_RDONLY | os.O_CLOEXEC

NEAR: Final = frozenset(
    {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""File systems of this machine's own disks and memory, by the names Linux has for them."""


@cache
def kind_of(device: int) -> str:
    """The kind of a file system, by the number of its device; "" where it is not known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounted = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:  # no Linux
        return ""
    found = [line.partition(" - ")[2].split() for line in mounted if line.split()[2] == number]
    return found[0][0] if found else ""


class OpenFile:
    """A file that closes when its last user lets go of it; of this machine it is mapped."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.near = kind_of(os.fstat(descriptor).st_dev) in NEAR
        if self.near and self.mapped:  # which holds a descriptor of its own
            self._close()

    def read(self, offset: int, size: int, *, mapped: bool) -> bytes | memoryview:
        """See `LocalFiles.read`."""
        if mapped or self.near:
            return self.mapped[offset : offset + size]
        return os.pread(self.descriptor, size, offset)

    @cached_property
    def mapped(self) -> memoryview:
        """The file in memory; the mapping lives as long as any view of it."""
        if not os.fstat(self.descriptor).st_size:
            return memoryview(b"")  # nothing can be mapped
        return memoryview(mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ))

    def _close(self) -> None:
        os.close(self.descriptor)
        self.descriptor = -1

    def __del__(self) -> None:
        if self.descriptor >= 0:
            self._close()
