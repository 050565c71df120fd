"""A bounded folder of files named by their SHA-256, shared by processes and nodes.

A file under its name is whole and was verified: it is written under another name, hashed, flushed
and renamed. So an entry is never stale, sets that share shards share entries, and whoever dies
leaves at most a part that the next one clears away. Files in use are held by a shared lock, which
eviction respects; on a file system without locks a file may vanish from its folder while it is
read, and stays readable.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightning_rad.storage.locks import held, taken
from lightning_rad.storage.settings import StorageError

log = logging.getLogger(__name__)

_LOCK_SECONDS: Final = 60.0
_STALE: Final = 3600.0
"""Seconds after which a part is taken for a dead process's, where nothing can be locked."""

_NUMBERS: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    bytes: int
    used: float


class Cache:
    """Files by digest, at most `cap` bytes beside those that are open."""

    def __init__(self, folder: Path, cap: int) -> None:
        self.folder, self.cap = folder, cap
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"data.remote.cache {folder}: {error.strerror}; name a folder that can be written"
            ) from None

    def open(self, digest: str, size: int) -> int | None:
        """A descriptor of the file, which is then in use until it is closed, or None."""
        path = self.folder / digest
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if taken(descriptor, shared=True) and _is(descriptor, path, size):
            os.utime(descriptor)
            return descriptor
        os.close(descriptor)  # it is being evicted, or it is not what was put there
        return None

    def read(self, digest: str) -> bytes | None:
        """A small file whose size nobody noted, None where it is not here or damaged."""
        try:
            data = (self.folder / digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a small file of this digest."""
        os.close(self.put(digest, len(data), lambda part: _write_all(part, data)))

    @contextmanager
    def alone(self, digest: str, seconds: float) -> Iterator[None]:
        """Keep others from fetching the same file; after so many seconds go on all the same."""
        path = self.folder / f"{digest}.lock"
        with held(path, seconds) as mine:
            if not mine:
                log.warning("%s: another process holds it for long; fetching as well", path)
            yield
            if mine:
                path.unlink(missing_ok=True)

    def put(self, digest: str, size: int, write: Callable[[int], None]) -> int:
        """Make room, let `write` fill a file, keep it; a descriptor of it, in use until closed.

        What `write` raises leaves nothing behind. Raises StorageError where the disk is full.
        """
        part = self.folder / f"{digest}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}.part"
        try:
            with held(self.folder / "lock", _LOCK_SECONDS):
                self._make_room(size)
                descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                taken(descriptor, shared=True)
                os.ftruncate(descriptor, size)  # counts as used from now on
        except OSError as error:
            raise self._full(error) from error
        try:
            write(descriptor)
            os.fsync(descriptor)
            part.rename(self.folder / digest)
        except BaseException as error:
            os.close(descriptor)
            part.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._full(error) from error
            raise
        return descriptor

    def _full(self, error: OSError) -> StorageError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; lower data.remote.gib, or name another folder" if full else ""
        return StorageError(f"data.remote.cache {self.folder}: {error.strerror or error}{hint}")

    def _make_room(self, size: int) -> None:
        """Delete the least recently used that nobody reads until `size` bytes more fit."""
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total + size <= self.cap:
                return
            if _deleted(entry):
                total -= entry.bytes

    def _entries(self) -> Iterator[_Entry]:
        with os.scandir(self.folder) as found:
            for each in found:
                if each.name == "lock" or each.name.endswith(".lock"):
                    continue
                try:
                    stat = each.stat()
                except FileNotFoundError:
                    continue
                abandoned = each.name.endswith(".part")
                used = 0.0 if abandoned else max(stat.st_mtime, stat.st_atime)
                yield _Entry(Path(each.path), stat.st_size, used)


def _write_all(descriptor: int, data: bytes) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)


def _deleted(entry: _Entry) -> bool:
    """Delete a file unless it is in use; a part is in use by whoever writes it."""
    try:
        descriptor = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        part = entry.path.suffix == ".part"
        if not taken(descriptor):
            return False
        if part and time.time() - os.fstat(descriptor).st_mtime < _STALE and _lockless(descriptor):
            return False
        entry.path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _lockless(descriptor: int) -> bool:
    """Whether two descriptors of one file can both be locked: then locks say nothing."""
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        return taken(other)
    finally:
        os.close(other)


def _is(descriptor: int, path: Path, size: int) -> bool:
    """Whether an open file is whole, and still the one of its name."""
    here = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return here.st_size == size and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
