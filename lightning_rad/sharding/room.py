"""A full disk as an error that says what to do, and leaves room for doing it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def room(folder: Path, workshop: Path) -> Iterator[None]:
    """Raises ValueError naming the folder where what is done in it finds no room.

    workshop: where unfinished files lie; then they are deleted.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        for part in workshop.glob("*.part"):
            part.unlink()
        raise ValueError(
            f"{folder}: {(error.strerror or 'no room').lower()}; the shards that are written are "
            "whole: make room and run the same command again to continue"
        ) from None
