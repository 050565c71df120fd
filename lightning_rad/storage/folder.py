"""Folders of shards by one face: of this machine, or of a store named by URL."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from lightning_rad.storage.door import Door, door
from lightning_rad.storage.patience import Patience
from lightning_rad.storage.settings import Remote, StorageError
from lightning_rad.storage.urls import url_of

WHOLE: Final = 64 * 2**20
"""Bytes of a range above which it is read in parts; and of a small object, such as a manifest."""


class Folder(Protocol):
    """What can be read of a folder and put into it; str() is its name for messages."""

    def read(self, name: str) -> bytes:
        """All of a small file. Raises FileNotFoundError or StorageError."""

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Some bytes of a file, fewer where a local one ends. Raises as `read`."""

    def local(self, name: str) -> Path | None:
        """Where the file lies on a mounted file system, None for one of a store."""

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""

    def put(self, name: str, file: Path) -> None:
        """Copy a local file into it, whole or not at all."""


def open_folder(name: str | os.PathLike[str], remote: Remote | None = None) -> Folder:
    """The folder of a path or URL. Raises StorageError for a URL that is not read."""
    url = url_of(name)
    return LocalFolder(Path(name)) if url is None else RemoteFolder(url, remote or Remote())


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder of this machine or of a file system that it has mounted."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str) -> bytes:
        """All of a file."""
        return (self.root / name).read_bytes()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Some bytes of a file."""
        with (self.root / name).open("rb") as file:
            return os.pread(file.fileno(), size, offset)

    def local(self, name: str) -> Path | None:
        """The file."""
        return self.root / name

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        file = self.root / name
        return file.stat().st_size if file.exists() else None

    def put(self, name: str, file: Path) -> None:
        """Copy a file, by way of a part that is renamed."""
        part = self.root / f"{name}.part"
        with file.open("rb") as source, part.open("wb") as target:
            while block := source.read(2**20):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        part.replace(self.root / name)


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder of a store; everything is tried again as `remote` says. Picklable."""

    url: str
    remote: Remote

    def __str__(self) -> str:
        return self.url

    def place(self, name: str) -> str:
        """The URL of a file, as it is asked for."""
        return f"{self.url}/{quote(name) if self.url.startswith('http') else name}"

    def read(self, name: str) -> bytes:
        """All of a small file."""
        url = self.place(name)
        return self._patience(url, lambda: self._door.whole(url))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of a file; where it has fewer that is an error."""
        url = self.place(name)
        if size > WHOLE:
            raise ValueError(f"{url}: {size} bytes at once")
        return self._patience(url, lambda: self._door.read(url, offset, size)) if size else b""

    def local(self, name: str) -> Path | None:  # noqa: ARG002 - of the protocol
        """None."""
        return None

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        url = self.place(name)
        return self._patience(url, lambda: self._door.size(url))

    def put(self, name: str, file: Path) -> None:
        """Copy a file; raises StorageError unless the store then holds as many bytes."""
        url = self.place(name)
        self._patience(url, lambda: self._door.put(file, url))
        if (held := self.size(name)) != (sent := file.stat().st_size):
            raise StorageError(f"{url}: the store holds {held} bytes of {sent} that were sent")

    @property
    def _door(self) -> Door:
        remote = self.remote
        return door(self.url.partition(":")[0], remote.timeout, remote.connections)

    @property
    def _patience(self) -> Patience:
        return Patience(self.remote.retries)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a store as a manifest describes it; str() is its URL."""

    folder: RemoteFolder
    name: str
    bytes: int
    sha256: str

    def __str__(self) -> str:
        return self.folder.place(self.name)
