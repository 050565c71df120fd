"""Bytes of shard members by offset, from any number of threads: read, or a view of mapped memory.

Nothing is parsed or unpickled here: offsets come from the index, and of a sample only the members
that the index knows (images, the JSON record, the report, gaze) are ever read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from lightning_rad.manifest import Index, image_entry
from lightning_rad.storage.local import LocalFiles
from lightning_rad.storage.remote import RemoteFiles

Fixation = tuple[float, float, float]

_UNCODED: Final = frozenset({b"pgm"})
"""Images that are their pixels, of which a copy would cost as much as all else."""


class BadSampleError(ValueError):
    """A member that cannot be read or decoded; the message names shard and key."""


class ShardSource:
    """Reads members of the shards of one index, on disk or in a store.

    What a store does not give, after all tries, is no BadSampleError but a StorageError: it ends a
    run, for nothing may be left out because a server was away.

    open_files: how many shards are kept open at once. Picklable; safe to use from many threads.
    """

    def __init__(self, index: Index, *, open_files: int = 64) -> None:
        self.index = index
        self._reports = index.studies[["report_offset", "report_size"]]
        self._files: LocalFiles | RemoteFiles
        if index.stored:
            self._files = RemoteFiles(index.stored, open_files)
        else:
            self._files = LocalFiles(index.files, open_files)

    @property
    def room(self) -> int:
        """Bytes of the cache that shards are read out of, 0 where they need none."""
        stored = self.index.stored
        return stored[0].folder.remote.bytes if stored else 0

    def bytes_of(self, shard: int) -> int:
        """Bytes of a shard of a store."""
        return self.index.stored[shard].bytes

    def expect(self, shards: Iterable[int]) -> None:
        """Begin to fetch shards (rows of the index's) that will be read, in this order."""
        self._files.expect(shards)

    def image(self, image: int) -> tuple[bytes | memoryview, str]:
        """The bytes of an image as stored, and its suffix. Raises BadSampleError.

        Of a shard that lies in this machine, and of an image that is not encoded ("pgm") always,
        they are a read-only view of the mapped shard, which stays mapped as long as the view lives.
        """
        study, _, offset, size, suffix = self.index.images[image].item()  # the fields of IMAGE
        return self._read(study, offset, size, mapped=suffix in _UNCODED), suffix.decode()

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
        offset, size = self._reports[study].item()
        return bytes(self._read(study, offset, size)) if size else b""

    def name(self, study: int) -> str:
        """Shard and key of a study, for messages."""
        place = self.index.place(int(self.index.shard_of_study[study]))
        return f"{place}, key {self.index.studies[study]['key'].decode()}"

    def _object(self, study: int, member: str, called: str) -> dict[str, Any]:
        row = self.index.studies[study]
        if not row[f"{member}_size"]:
            return {}
        data = bytes(self._read(study, int(row[f"{member}_offset"]), int(row[f"{member}_size"])))
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadSampleError(f"{self.name(study)}: malformed {called}: {error}") from None
        if not isinstance(found, dict):
            raise BadSampleError(f"{self.name(study)}: the {called} is not an object")
        return found

    def _read(
        self, study: int, offset: int, size: int, *, mapped: bool = False
    ) -> bytes | memoryview:
        try:
            data = self._files.read(
                int(self.index.shard_of_study[study]), offset, size, mapped=mapped
            )
        except OSError as error:
            raise BadSampleError(f"{self.name(study)}: {error.strerror}") from None
        if len(data) != size:
            raise self._short(study, offset, size, len(data))
        return data

    def _short(self, study: int, offset: int, size: int, found: int) -> BadSampleError:
        return BadSampleError(
            f"{self.name(study)}: {found} of {size} bytes at offset {offset} "
            "(is the shard truncated?)"
        )
