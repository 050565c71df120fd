"""Locks between processes and nodes on one disk: released by the system when their holder dies.

`flock` on a file, on NFS too (Linux turns it into a lock of the server). Where a file system has
no locks everybody gets them at once: nothing here rests on them but that work is not done twice
and that what is in use is not deleted; contents are kept whole by renaming.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_POLL: Final = 0.02
_SLOWEST_POLL: Final = 0.5


def taken(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file at once, or say that another holds it."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return True
        if error.errno in (errno.EACCES, errno.EAGAIN):  # of NFS
            return False
        raise
    return True


def taken_within(descriptor: int, seconds: float, *, shared: bool = False) -> bool:
    """Wait for the lock, by asking again and again, so that a dead server cannot hold us."""
    end, pause = time.monotonic() + seconds, _POLL
    while not taken(descriptor, shared=shared):
        if time.monotonic() > end:
            return False
        time.sleep(random.SystemRandom().uniform(pause / 2, pause))
        pause = min(2 * pause, _SLOWEST_POLL)
    return True


@contextmanager
def held(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock of a file that is made for it; False where it was not to be had in time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield taken_within(descriptor, seconds)
    finally:
        os.close(descriptor)
