"""Which names are URLs of stores, and which of them are read."""

from __future__ import annotations

import os
import re
from typing import Final

from lightning_rad.storage.settings import StorageError

SCHEMES: Final = ("http", "https", "s3", "gs")

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def url_of(name: str | os.PathLike[str]) -> str | None:
    """The URL that a name is, without a slash at its end, or None for a path.

    A Path made of a URL, which has lost one of its slashes, gets it back. Raises StorageError for
    a scheme that is not read.
    """
    found = _URL.fullmatch(os.fspath(name))
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2].rstrip("/")
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise StorageError(f"{name}: accepted are folders, {known}")
    if "@" in rest.split("/")[0]:
        raise StorageError(f"{scheme}://...: a URL holds no user or password; see docs/data.md")
    return f"{scheme}://{rest}"
