"""Bytes of files of a store by number and offset: out of the cache, fetched before they are needed.

Nothing of a shard is given out before all of it was held against the manifest's SHA-256.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from typing import Final

from lightning_rad.storage.fetching import Fetcher, fetcher
from lightning_rad.storage.folder import Stored
from lightning_rad.storage.local import OpenFile

_NEED: Final = itertools.count(1)
"""What was expected first is needed first; what a thread waits for is needed before all that."""


class RemoteFiles:
    """Reads ranges of some files of a store. Picklable; for many threads.

    most: files held open at once; a file that is open is not evicted.
    """

    def __init__(self, files: Sequence[Stored], most: int) -> None:
        self._stored, self._most = tuple(files), most
        remote = self._stored[0].folder.remote
        self._fetcher: Fetcher | None = fetcher(remote) if remote.bytes else None
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Future[OpenFile]] = OrderedDict()
        self._coming: dict[int, Future[None]] = {}

    def read(self, row: int, offset: int, size: int, *, mapped: bool = False) -> bytes | memoryview:
        """Some bytes of a file, as `LocalFiles.read`. Raises StorageError, naming the URL."""
        if self._fetcher is None:
            stored = self._stored[row]
            return stored.folder.read_range(stored.name, offset, size)
        return self._file(row, self._fetcher).read(offset, size, mapped=mapped)

    def expect(self, rows: Iterable[int]) -> None:
        """Begin to fetch files that will be read, in this order; a failure waits till then."""
        if self._fetcher is None:
            return
        with self._lock:
            for row in rows:
                if row not in self._open and row not in self._coming:
                    need = float(next(_NEED))
                    self._coming[row] = self._fetcher.begin(self._stored[row], need)

    def _file(self, row: int, fetcher: Fetcher) -> OpenFile:
        with self._lock:
            future = self._open.get(row)
            mine = future is None
            if future is None:
                future = self._open[row] = Future()
            else:
                self._open.move_to_end(row)
            coming = self._coming.pop(row, None)
        if mine:
            self._fill(row, future, coming, fetcher)
        return future.result()

    def _fill(
        self, row: int, future: Future[OpenFile], coming: Future[None] | None, fetcher: Fetcher
    ) -> None:
        """Open a file, for all who wait for it; forget it where that fails."""
        if coming is not None and not coming.cancel():
            wait([coming])  # where it failed it is tried once more
        try:
            file = OpenFile(fetcher.fetch(self._stored[row]))
        except BaseException as error:
            with self._lock:
                self._open.pop(row, None)
            future.set_exception(error)
            return
        future.set_result(file)
        with self._lock:
            done = [number for number, each in self._open.items() if each.done()]
            for old in done[: max(0, len(self._open) - self._most)]:
                del self._open[old]

    def __reduce__(self) -> tuple[type[RemoteFiles], tuple[tuple[Stored, ...], int]]:
        return RemoteFiles, (self._stored, self._most)
