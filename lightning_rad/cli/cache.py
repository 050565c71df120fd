"""`lightning-rad shards cache`: the raw tier of shards, which a stream reads without decoding."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_rad.data.decode import decode
from lightning_rad.manifest import Manifest
from lightning_rad.sharding.raw import cache as write_raw


def cache(
    shards: Path,
    out: Path,
    *,
    short_side: int = 256,
    threads: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write shards once more, each image shrunk and stored as its pixels, one byte each.

    What a stream reads is what it would decode, shrunk; it costs disk space (700,000 images of 256
    x 256: 46 GB) and saves the decoding. Run again after a crash it continues.

    Args:
        shards: Folder that `shards build` wrote.
        out: Folder of the new shards, on a fast disk of the node or in /dev/shm.
        short_side: Images are shrunk to it, averaging areas, and never enlarged.
        threads: Threads that decode; default one a core.
        overwrite: Replace whatever shards lie in `out`.
    """
    workers = len(os.sched_getaffinity(0)) if threads is None else threads
    return write_raw(
        shards, out, decode, short_side=short_side, threads=workers, overwrite=overwrite
    )
