"""How stores are read and what is kept of them on this machine's disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class StorageError(ValueError):
    """What cannot be had from a store; the message names the URL. Never taken for a bad sample."""


@dataclass(frozen=True)
class Remote:
    """How shards named by URL are read; sets in local folders need none of it.

    Args:
        cache: Folder that keeps shards; by default `LIGHTNING_RAD_CACHE`, else
            `lightning_rad/shards` in the user's cache folder. Processes and nodes may share it.
        gib: The most it holds, in GiB, beside what is being read; the least recently used goes
            first. 0 keeps nothing: each image is a request of its own, and nothing is verified.
        connections: Requests of a process under way at once.
        timeout: Seconds without a byte after which a request is given up and made again.
        retries: How often it is made again, after pauses that grow, before the run ends.
    """

    cache: str | None = None
    gib: float = 100.0
    connections: int = 8
    timeout: float = 30.0
    retries: int = 8

    def __post_init__(self) -> None:
        if self.gib < 0:
            raise ValueError(f"data.remote.gib must be at least 0, got {self.gib}")
        if self.connections < 1:
            raise ValueError(f"data.remote.connections must be at least 1, got {self.connections}")
        if self.timeout <= 0:
            raise ValueError(f"data.remote.timeout must be positive, got {self.timeout}")
        if self.retries < 0:
            raise ValueError(f"data.remote.retries must be at least 0, got {self.retries}")

    @property
    def folder(self) -> Path:
        """Where the cache lies."""
        if named := self.cache or os.environ.get("LIGHTNING_RAD_CACHE"):
            return Path(named).expanduser()
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(home).expanduser() / "lightning_rad" / "shards"

    @property
    def bytes(self) -> int:
        """The most the cache holds."""
        return int(self.gib * 2**30)
