"""`contents.json`: sizes and SHA-256 of a checkpoint's files; written last, the commit mark."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

CONTENTS = "contents.json"
FORMAT = 1


@dataclass(frozen=True)
class Contents:
    """What `contents.json` says.

    step: optimiser steps taken. files: {name: (bytes, SHA-256)}. about: plain data of whoever wrote
    it, such as the digests of its data and of its objective's config.
    """

    step: int
    files: dict[str, tuple[int, str]]
    about: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write and flush to disk, with a digest of itself."""
        body = {
            "format": FORMAT,
            "step": self.step,
            "about": self.about,
            "files": {name: list(self.files[name]) for name in sorted(self.files)},
        }
        text = json.dumps(body | {"sha256": _of_body(body)}, indent=1)
        write_through(folder / CONTENTS, text.encode())


def read_contents(folder: Path) -> Contents:
    """What a checkpoint says of itself; its other files are not opened. Raises ValueError."""
    file = folder / CONTENTS
    try:
        body = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{folder} is no whole checkpoint: it has no {CONTENTS}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable: {error}") from None
    if not isinstance(body, dict) or body.pop("sha256", None) != _of_body(body):
        raise ValueError(f"{file}: damaged: its SHA-256 does not hold")
    if body["format"] != FORMAT:
        raise ValueError(f"{file}: format {body['format']}; this version reads {FORMAT}")
    files = {name: (int(size), str(sha)) for name, (size, sha) in body["files"].items()}
    return Contents(body["step"], files, body["about"])


def verify(folder: str | PathLike[str]) -> Contents:
    """Read every file of a checkpoint and compare. Raises ValueError, naming the first bad file."""
    folder = Path(folder)
    contents = read_contents(folder)
    for name, (size, sha) in contents.files.items():
        file = folder / name
        try:
            found = measure(file)
        except OSError as error:
            raise ValueError(f"{file}: damaged checkpoint: {error.strerror or error}") from None
        if found[0] != size:
            raise ValueError(f"{file}: damaged checkpoint: {found[0]} bytes in place of {size}")
        if found[1] != sha:
            raise ValueError(f"{file}: damaged checkpoint: its SHA-256 does not hold")
    return contents


def measure(file: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    with file.open("rb") as content:
        sha = hashlib.file_digest(content, "sha256").hexdigest()
        return content.tell(), sha


def write_through(file: Path, data: bytes) -> None:
    """Write a file and flush it to disk."""
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _of_body(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
