"""Walking a tar file: the name, place and size of every member, without reading their data.

Plain USTAR is what this package writes; shards of others may carry GNU or PAX long names, which
are followed. Everything a reader could stumble over later is refused here, with file and offset.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

BLOCK: Final = tarfile.BLOCKSIZE
REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class ShardError(ValueError):
    """A tar file that is truncated, damaged or not usable as a shard."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: `offset` and `size` are those of its data, in bytes."""

    name: str
    offset: int
    size: int


def walk(path: Path) -> Iterator[Member]:
    """The regular files of a tar, in order. Raises ShardError naming file and offset."""
    length = path.stat().st_size
    with path.open("rb") as file:
        position, renamed = 0, dict[str, str]()
        while (header := _header(path, file, position)) is not None:
            if "size" in renamed:
                header.size = int(renamed["size"])
            data = position + BLOCK
            if data + header.size > length:
                raise ShardError(
                    f"{path}: truncated: member '{header.name}' at offset {position} "
                    f"ends beyond the file"
                )
            position = data + -(-header.size // BLOCK) * BLOCK
            if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                renamed |= _extension(path, header, file.read(header.size), data)
                continue
            if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                continue
            name, renamed = renamed.get("path", header.name), {}
            if header.type in REGULAR:
                yield Member(_safe(path, name, data), data, header.size)
            elif header.type != tarfile.DIRTYPE:
                raise ShardError(f"{path}: '{name}' at offset {data} is no file but a link or hole")
        _check_end(path, file, position)


def _header(path: Path, file: BinaryIO, position: int) -> tarfile.TarInfo | None:
    """The header at a position; None at the end-of-archive marker."""
    file.seek(position)
    block = file.read(BLOCK)
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
        raise ShardError(
            f"{path}: truncated: no end-of-archive marker at offset {position}"
        ) from None
    except tarfile.HeaderError as error:
        raise ShardError(f"{path}: damaged: {error} at offset {position}") from None


def _extension(path: Path, header: tarfile.TarInfo, data: bytes, offset: int) -> dict[str, str]:
    """The long name (and size) that a PAX or GNU header gives to the member after it."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    fields: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise ShardError(f"{path}: damaged: PAX header at offset {offset}")
        record = rest[: int(length) - len(length) - 2]
        key, _, value = record.decode("utf-8", "surrogateescape").partition("=")
        if key.startswith("GNU.sparse"):
            raise ShardError(f"{path}: sparse member at offset {offset} is not supported")
        fields[key] = value
        data = data[int(length) :]
    return {k: v for k, v in fields.items() if k in ("path", "size")}


def _safe(path: Path, name: str, offset: int) -> str:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ShardError(f"{path}: member '{name}' at offset {offset} leaves the archive: refused")
    return name


def _check_end(path: Path, file: BinaryIO, position: int) -> None:
    """After the marker only zeros may follow; else members would be lost without a word."""
    file.seek(position)
    while chunk := file.read(1 << 20):
        if chunk.strip(b"\0"):
            raise ShardError(
                f"{path}: data after the end-of-archive marker at offset {position} "
                f"(several tars in one file?)"
            )
