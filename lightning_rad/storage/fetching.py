"""Whole files of a store into the cache: in blocks, over several connections, verified."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import Final

from lightning_rad.storage.cache import Cache
from lightning_rad.storage.folder import Stored
from lightning_rad.storage.lanes import Lanes
from lightning_rad.storage.settings import Remote, StorageError

log = logging.getLogger(__name__)

BLOCK: Final = 8 * 2**20
_WAIT: Final = 900.0
"""Seconds to wait for another process that fetches the same file, before fetching it as well."""


class _WrongBytesError(Exception):
    """The bytes that came are not those of the manifest."""


class Fetcher:
    """Brings files into a cache, each once, the ones needed first before the others.

    Safe to use from many threads; one a process and settings, by `fetcher`.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.cache = Cache(remote.folder, remote.bytes)
        self._blocks = Lanes(remote.connections, "blocks")
        self._files = Lanes(max(2, remote.connections), "shards")

    def begin(self, stored: Stored, need: float) -> Future[None]:
        """Bring a file into the cache, the lowest `need` first."""
        return self._files.submit(need, lambda: os.close(self.fetch(stored, need)))

    def fetch(self, stored: Stored, need: float = 0.0) -> int:
        """A descriptor of the file in the cache, in use until closed.

        Raises StorageError, naming the URL.
        """
        found = self.cache.open(stored.sha256, stored.bytes)
        if found is not None:
            return found
        with self.cache.alone(stored.sha256, _WAIT):
            found = self.cache.open(stored.sha256, stored.bytes)  # by whoever was before us
            if found is not None:
                return found
            write = partial(self._write, stored, need)
            try:
                return self.cache.put(stored.sha256, stored.bytes, write)
            except _WrongBytesError as error:
                log.warning("%s: %s; fetching it once more", stored, error)
            try:
                return self.cache.put(stored.sha256, stored.bytes, write)
            except _WrongBytesError as error:
                raise StorageError(f"{stored}: {error}, twice (damaged, or replaced?)") from None

    def _write(self, stored: Stored, need: float, descriptor: int) -> None:
        """Fill a file block by block, hashing in order, few blocks in memory at a time."""
        digest = hashlib.sha256()
        coming: deque[tuple[int, Future[bytes]]] = deque()
        offsets = iter(range(0, stored.bytes, BLOCK))
        try:
            while True:
                while len(coming) < self._remote.connections and (at := next(offsets, -1)) >= 0:
                    size = min(BLOCK, stored.bytes - at)
                    read = partial(stored.folder.read_range, stored.name, at, size)
                    coming.append((at, self._blocks.submit(need, read)))
                if not coming:
                    break
                at, block = coming.popleft()
                data = block.result()
                digest.update(data)
                _write_at(descriptor, data, at)
        finally:
            for _, block in coming:
                block.cancel()
        if digest.hexdigest() != stored.sha256:
            raise _WrongBytesError(
                f"its sha256 is {digest.hexdigest()[:16]}..., the manifest says "
                f"{stored.sha256[:16]}..."
            )


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


def fetcher(remote: Remote) -> Fetcher:
    """The one of a process for some settings."""
    return _fetcher(remote, remote.folder)


@cache
def _fetcher(remote: Remote, folder: Path) -> Fetcher:  # noqa: ARG001 - the environment may change
    return Fetcher(remote)
