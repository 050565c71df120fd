"""The index of shards: where each byte of every study and image lies, so nobody parses a tar."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest.contents import Manifest, ManifestError, Shard
from lightning_rad.storage.fetching import fetcher
from lightning_rad.storage.folder import RemoteFolder, Stored
from lightning_rad.storage.settings import StorageError

STUDY: Final = np.dtype(
    [
        ("key", "S64"),  # the sample's key in the tar
        ("patient", "<u8"),  # hash of the patient, 0 where unknown
        ("json_offset", "<i8"),
        ("json_size", "<i8"),  # a size of 0 means: this study has no such member
        ("report_offset", "<i8"),
        ("report_size", "<i8"),
        ("gaze_offset", "<i8"),
        ("gaze_size", "<i8"),
    ]
)
"""One record a study: offsets and sizes are those of the member's data in the tar, in bytes."""

IMAGE: Final = np.dtype(
    [
        ("study", "<i4"),  # row of the STUDY array
        ("ordinal", "<i4"),  # position within the study, the NN of `<key>.NN.jpg`
        ("offset", "<i8"),
        ("size", "<i8"),
        ("suffix", "S4"),  # jpg, jpeg, png or pgm
    ]
)
"""One record an image."""


@dataclass(frozen=True, slots=True)
class Index:
    """Every study and image of some shards, concatenated in order.

    images["study"] counts over all studies here. shard_of_study: [S] row of `files`, or of `stored`
    for shards in a store, of which `files` are names alone.
    """

    files: tuple[Path, ...]
    studies: npt.NDArray[np.void]
    images: npt.NDArray[np.void]
    shard_of_study: npt.NDArray[np.int32]
    stored: tuple[Stored, ...] = ()

    def place(self, row: int) -> str:
        """Path or URL of a shard."""
        return str(self.stored[row] if self.stored else self.files[row])


def load_index(manifest: Manifest, shards: Sequence[Shard]) -> Index:
    """Load the indexes of some shards of a manifest. Raises ManifestError, naming the file."""
    studies = np.empty(sum(s.studies for s in shards), STUDY)
    images = np.empty(sum(s.images for s in shards), IMAGE)
    owner = np.empty(len(studies), np.int32)
    base = first = 0
    for row, (shard, data) in enumerate(zip(shards, _indexes(manifest, shards), strict=True)):
        file = f"{manifest.folder}/{shard.index}"
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            raise ManifestError(f"{file}: not the index that the manifest describes (damaged?)")
        study, image = _parse_index(file, data)
        if (len(study), len(image)) != (shard.studies, shard.images):
            raise ManifestError(
                f"{file}: holds {len(study)} studies and {len(image)} "
                f"images, the manifest says {shard.studies} and {shard.images}"
            )
        image["study"] += base
        studies[base : base + len(study)], images[first : first + len(image)] = study, image
        owner[base : base + len(study)] = row
        base, first = base + len(study), first + len(image)
    return Index(
        files=tuple(manifest.root / s.file for s in shards),
        studies=studies,
        images=images,
        shard_of_study=owner,
        stored=_stored(manifest, shards),
    )


def _stored(manifest: Manifest, shards: Sequence[Shard]) -> tuple[Stored, ...]:
    folder = manifest.remote
    return tuple(Stored(folder, s.file, s.bytes, s.sha256) for s in shards) if folder else ()


def _indexes(manifest: Manifest, shards: Sequence[Shard]) -> Iterator[bytes]:
    """The bytes of the shards' indexes; those of a store all at once, by way of the cache."""
    folder = manifest.remote
    if folder is None:
        for shard in shards:
            yield _index_bytes(manifest.root / shard.index)
        return
    with ThreadPoolExecutor(folder.remote.connections) as pool:
        try:
            yield from pool.map(lambda shard: _fetched(folder, shard), shards)
        except StorageError as error:
            raise ManifestError(str(error)) from None


def _fetched(folder: RemoteFolder, shard: Shard) -> bytes:
    """An index of a store."""
    digest = shard.index_sha256
    if folder.remote.bytes and (kept := fetcher(folder.remote).cache.read(digest)) is not None:
        return kept
    for _ in range(2):  # wrong bytes, which the caller names, may have been the network's
        data = folder.read(shard.index)
        if hashlib.sha256(data).hexdigest() == digest:
            if folder.remote.bytes:
                fetcher(folder.remote).cache.keep(digest, data)
            break
    return data


def image_entry(record: Any, ordinal: int) -> dict[str, Any]:
    """What a study's JSON record says of its image NN.jpg; {} where it says nothing we know."""
    images = record.get("images") if isinstance(record, dict) else None
    for entry in images if isinstance(images, list) else []:
        number = str(entry.get("file", "")).split(".")[0] if isinstance(entry, dict) else ""
        if number.isdigit() and int(number) == ordinal:
            return dict(entry)
    return {}


def read_index(path: Path) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """The STUDY and IMAGE records of one shard."""
    return _parse_index(path, _index_bytes(path))


def _index_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: missing; run the same `shards build` (or `shards index`) again"
        ) from None


def _parse_index(
    path: Path | str, data: bytes
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    file = io.BytesIO(data)
    try:
        return _read_array(file, STUDY), _read_array(file, IMAGE)
    except (ValueError, EOFError) as error:
        raise ManifestError(f"{path}: not a shard index: {error}") from None


def write_index(path: Path, studies: npt.NDArray[np.void], images: npt.NDArray[np.void]) -> None:
    """Write one shard's STUDY and IMAGE records; the same records give the same bytes."""
    with path.open("wb") as file:
        np.save(file, studies.astype(STUDY, copy=False), allow_pickle=False)
        np.save(file, images.astype(IMAGE, copy=False), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


_PARSER: Final = threading.Lock()
"""NumPy parses an array's header by `ast`, and Python 3.11 may raise SystemError ("AST constructor
recursion depth mismatch", cpython gh-106905) where several threads do so at once."""


def _read_array(file: BinaryIO, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    with _PARSER:
        array: npt.NDArray[np.void] = np.load(file, allow_pickle=False)
    if array.dtype != dtype:
        raise ValueError(f"record type {array.dtype} is not {dtype}")
    return array
