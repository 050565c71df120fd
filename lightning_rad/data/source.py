"""Bytes of shard members by offset: `pread` on the tar files, from any number of threads.

Nothing is parsed or unpickled here: offsets come from the index, and of a sample only the members
that the index knows (images, the JSON record, the report, gaze) are ever read.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from lightning_rad.manifest import Index, image_entry

Fixation = tuple[float, float, float]


class BadSampleError(ValueError):
    """A member that cannot be read or decoded; the message names shard and key."""


class ShardSource:
    """Reads members of the shards of one index.

    open_files: how many shards are kept open at once. Picklable; safe to use from many threads.
    """

    def __init__(self, index: Index, *, open_files: int = 64) -> None:
        self.index = index
        self._files = _OpenFiles(index.files, open_files)

    def image(self, image: int) -> tuple[bytes, str]:
        """The encoded bytes of an image and its suffix. Raises BadSampleError."""
        record = self.index.images[image]
        study = int(record["study"])
        data = self._read(study, int(record["offset"]), int(record["size"]))
        return data, record["suffix"].decode()

    def record(self, study: int) -> dict[str, Any]:
        """The parsed JSON record of a study, {} where it has none. Raises BadSampleError."""
        return self._object(study, "json", "JSON record")

    def entry(self, image: int) -> dict[str, Any]:
        """What the record says of an image, {} where it says nothing. Raises BadSampleError."""
        row = self.index.images[image]
        study = int(row["study"])
        try:
            return image_entry(self.record(study), int(row["ordinal"]))
        except BadSampleError:
            raise
        except ValueError as error:  # a name whose digits are no number
            raise BadSampleError(f"{self.name(study)}: malformed JSON record: {error}") from None

    def gaze(self, study: int) -> dict[str, Any]:
        """The fixations of a study's images by ordinal, {} where it has none; see `fixations`."""
        return self._object(study, "gaze", "gaze")

    def fixations(self, image: int) -> list[Fixation]:
        """(x, y, seconds) of each fixation on an image, in fractions of its width and height.

        Those that are not finite, outside or of no duration are among them. Raises BadSampleError.
        """
        row = self.index.images[image]
        study, ordinal = int(row["study"]), int(row["ordinal"])
        said = self.gaze(study)
        try:
            found = [rows for key, rows in said.items() if key.isdecimal() and int(key) == ordinal]
            return [(float(x), float(y), float(s)) for rows in found for x, y, s in rows]
        except (TypeError, ValueError, OverflowError) as error:
            raise BadSampleError(f"{self.name(study)}: malformed gaze: {error}") from None

    def report(self, study: int) -> bytes:
        """The report of a study as it is stored, b"" where it has none. Raises BadSampleError."""
        row = self.index.studies[study]
        if not row["report_size"]:
            return b""
        return self._read(study, int(row["report_offset"]), int(row["report_size"]))

    def name(self, study: int) -> str:
        """Shard and key of a study, for messages."""
        file = self.index.files[int(self.index.shard_of_study[study])]
        return f"{file}, key {self.index.studies[study]['key'].decode()}"

    def _object(self, study: int, member: str, called: str) -> dict[str, Any]:
        row = self.index.studies[study]
        if not row[f"{member}_size"]:
            return {}
        data = self._read(study, int(row[f"{member}_offset"]), int(row[f"{member}_size"]))
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadSampleError(f"{self.name(study)}: malformed {called}: {error}") from None
        if not isinstance(found, dict):
            raise BadSampleError(f"{self.name(study)}: the {called} is not an object")
        return found

    def _read(self, study: int, offset: int, size: int) -> bytes:
        try:
            data = self._files.pread(int(self.index.shard_of_study[study]), offset, size)
        except OSError as error:
            raise BadSampleError(f"{self.name(study)}: {error.strerror}") from None
        if len(data) != size:
            raise BadSampleError(
                f"{self.name(study)}: {len(data)} of {size} bytes at offset {offset} "
                "(is the shard truncated?)"
            )
        return data


class _OpenFiles:
    """The last few files opened; one in use by a thread is closed only after its read."""

    def __init__(self, paths: tuple[Path, ...], most: int) -> None:
        self._paths, self._most = paths, most
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _File] = OrderedDict()

    def pread(self, row: int, offset: int, size: int) -> bytes:
        with self._lock:
            file = self._open.pop(row, None) or _File(self._paths[row])
            self._open[row] = file
            if len(self._open) > self._most:
                self._open.popitem(last=False)
        return os.pread(file.descriptor, size, offset)

    def __reduce__(self) -> tuple[type[_OpenFiles], tuple[tuple[Path, ...], int]]:
        return _OpenFiles, (self._paths, self._most)


class _File:
    """A descriptor that closes when its last user lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
