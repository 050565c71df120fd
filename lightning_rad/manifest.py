"""Read, check and index a manifest: what a folder of shards holds, and where each byte of it lies.

A shard folder holds `manifest.json`, the shards (`train-000000.tar`, plain USTAR, one sample a
study) and beside each shard its index (`train-000000.idx`): two NumPy arrays in one file, STUDY
records and IMAGE records, in the order of the tar. Readers never parse a tar: they `pread`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

FORMAT: Final = 1
"""Version of the manifest's and the index's layout; a newer one is refused."""

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
        ("suffix", "S4"),  # jpg, jpeg or png
    ]
)
"""One record an image."""


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
    """

    root: Path
    name: str
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    prevalence: dict[str, dict[str, dict[str, int]]]
    shards: tuple[Shard, ...]
    details: dict[str, Any]

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
                f"{self.root / 'manifest.json'}: no shard of split '{split}'; it has {present}"
            )
        return found

    def save(self) -> Path:
        """Write `manifest.json` into `root`, atomically."""
        body = {"format": FORMAT, "digest": self.digest} | asdict(self)
        del body["root"]
        path = self.root / "manifest.json"
        write_atomically(path, (json.dumps(body, indent=1, sort_keys=True) + "\n").encode())
        return path


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest given its file or its folder. Raises ManifestError, naming the file."""
    file = Path(path)
    file = file / "manifest.json" if file.is_dir() else file
    try:
        body = json.loads(file.read_text())
    except FileNotFoundError:
        raise ManifestError(f"{file}: no such manifest; build one with `shards build`") from None
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
            root=file.parent,
            name=body["name"],
            labels=tuple(body["labels"]),
            fields=tuple(body["fields"]),
            prevalence=body["prevalence"],
            shards=tuple(Shard(**s) for s in body["shards"]),
            details=body["details"],
        )
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{file}: not a manifest: {error}") from None
    if manifest.digest != body.get("digest"):
        raise ManifestError(f"{file}: its digest does not match its contents (edited by hand?)")
    return manifest


@dataclass(frozen=True, slots=True)
class Index:
    """Every study and image of some shards, concatenated in order.

    images["study"] counts over all studies here. shard_of_study: [S] row of `files`.
    """

    files: tuple[Path, ...]
    studies: npt.NDArray[np.void]
    images: npt.NDArray[np.void]
    shard_of_study: npt.NDArray[np.int32]


def load_index(manifest: Manifest, shards: Sequence[Shard]) -> Index:
    """Load the indexes of some shards of a manifest. Raises ManifestError, naming the file."""
    studies, images, owner, base = [], [], [], 0
    for row, shard in enumerate(shards):
        file = manifest.root / shard.index
        data = _index_bytes(file)
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            raise ManifestError(f"{file}: not the index that the manifest describes (damaged?)")
        study, image = _parse_index(file, data)
        if (len(study), len(image)) != (shard.studies, shard.images):
            raise ManifestError(
                f"{file}: holds {len(study)} studies and {len(image)} "
                f"images, the manifest says {shard.studies} and {shard.images}"
            )
        image["study"] += base
        base += len(study)
        studies.append(study)
        images.append(image)
        owner.append(np.full(len(study), row, np.int32))
    return Index(
        files=tuple(manifest.root / s.file for s in shards),
        studies=np.concatenate(studies),
        images=np.concatenate(images),
        shard_of_study=np.concatenate(owner),
    )


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


def _parse_index(path: Path, data: bytes) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
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


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a restart after a crash, sees the old or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
