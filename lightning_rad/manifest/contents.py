"""The manifest: what a folder of shards holds, local or named by URL."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from lightning_rad.storage.folder import Folder, LocalFolder, RemoteFolder
from lightning_rad.storage.settings import Remote, StorageError
from lightning_rad.storage.urls import url_of

FORMAT: Final = 1
"""Version of the manifest's and the index's layout; a newer one is refused."""


class ManifestError(ValueError):
    """A manifest or index that is missing, malformed, newer than this software or untrue."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file and its index, as the manifest describes them."""

    file: str
    split: str
    bytes: int
    sha256: str
    index: str
    index_sha256: str
    patients: int
    studies: int
    images: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of `manifest.json`.

    labels: the findings that any image carries, in a fixed order: column c of every label matrix.
    prevalence: split -> finding -> {"present": n, "absent": n, "unknown": n}, counted in images.
    fields: which optional members occur, of "report", "gaze", "boxes", "saliency".
    details: what else the maker recorded (recipe digest, software version, rejected rows ...).
    root: its local folder. remote: where it was read from, of a set by URL; such a set has no root.
    """

    root: Path
    name: str
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    prevalence: dict[str, dict[str, dict[str, int]]]
    shards: tuple[Shard, ...]
    details: dict[str, Any]
    remote: RemoteFolder | None = field(default=None, compare=False)

    @property
    def folder(self) -> Folder:
        """Where its files are read."""
        return self.remote or LocalFolder(self.root)

    @property
    def digest(self) -> str:
        """Identity of the data: changes when any byte of any shard, index or label list does."""
        parts = [self.name, *self.labels]
        parts += [f"{s.split}/{s.file}:{s.sha256}:{s.index_sha256}" for s in self.shards]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def of_split(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in the manifest's order; none is an error naming those there."""
        found = tuple(s for s in self.shards if s.split == split)
        if not found:
            present = sorted({s.split for s in self.shards})
            raise ManifestError(
                f"{self.folder}/manifest.json: no shard of split '{split}'; it has {present}"
            )
        return found

    def save(self) -> Path:
        """Write `manifest.json` into `root`, atomically."""
        body = {"format": FORMAT, "digest": self.digest} | asdict(self)
        del body["root"], body["remote"]
        path = self.root / "manifest.json"
        write_atomically(path, (json.dumps(body, indent=1, sort_keys=True) + "\n").encode())
        return path


def load_manifest(path: str | os.PathLike[str], remote: Remote | None = None) -> Manifest:
    """Read a manifest given its file, its folder or a URL of either.

    remote: how a URL is read; without it one is refused. Raises ManifestError, naming the file.
    """
    try:
        url = url_of(path)
        if url is None:
            file = Path(path)
            file = file / "manifest.json" if file.is_dir() else file
            return _parsed(str(file), file.read_bytes(), file.parent, None)
        if remote is None:
            raise ManifestError(f"{url}: this works on local folders; fit and validate read URLs")
        folder = RemoteFolder(url.removesuffix("/manifest.json"), remote)
        data = folder.read("manifest.json")
        return _parsed(f"{folder}/manifest.json", data, Path(os.devnull), folder)
    except FileNotFoundError:
        raise ManifestError(f"{file}: no such manifest; build one with `shards build`") from None
    except StorageError as error:
        raise ManifestError(str(error)) from None


def _parsed(file: str, data: bytes, root: Path, remote: RemoteFolder | None) -> Manifest:
    try:
        body = json.loads(data.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(f"{file}: not a manifest: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("format"), int):
        raise ManifestError(f"{file}: not a manifest: no integer field 'format'")
    if body["format"] > FORMAT:
        raise ManifestError(
            f"{file}: format {body['format']} is newer than this software reads ({FORMAT})"
        )
    try:
        manifest = Manifest(
            root=root,
            name=body["name"],
            labels=tuple(body["labels"]),
            fields=tuple(body["fields"]),
            prevalence=body["prevalence"],
            shards=tuple(Shard(**s) for s in body["shards"]),
            details=body["details"],
            remote=remote,
        )
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{file}: not a manifest: {error}") from None
    if manifest.digest != body.get("digest"):
        raise ManifestError(f"{file}: its digest does not match its contents (edited by hand?)")
    return manifest


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a restart after a crash, sees the old or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
