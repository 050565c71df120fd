"""Lines that ranks leave for one another in the store they met through, without waiting."""

from __future__ import annotations

import threading
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store

from lightning_rad.collectives.ranks import rank, world_size

_ANSWER = 10.0  # seconds that the store may take


class Board:
    """One line a rank, the latest; for a thread of its own, beside the main thread's collectives.

    name: of the board; others with other names do not meet it.
    """

    def __init__(self, name: str) -> None:
        self._store: Store | None = None
        if world_size() > 1:
            # a client of its own: the group's is locked while it waits
            client = dist.distributed_c10d._get_default_store().clone()
            client.set_timeout(timedelta(seconds=_ANSWER))
            self._store = PrefixStore(f"lightning_rad/{name}", client)

    def post(self, line: str) -> None:
        """Put this rank's line up; where the store is gone, so is the rank that held it."""
        if self._store is None:
            return
        try:
            self._store.set(str(rank()), line)
        except RuntimeError:
            self._store = None

    def read(self) -> list[str | None] | None:
        """The lines by rank, None where there is none; None if the store does not answer."""
        answers: list[list[str | None]] = []
        if self._store is not None:  # a store whose process is stopped may never answer
            asking = threading.Thread(target=self._read, args=(self._store, answers), daemon=True)
            asking.start()
            asking.join(_ANSWER)
        return answers[0] if answers else None

    @staticmethod
    def _read(store: Store, answers: list[list[str | None]]) -> None:
        keys = [str(other) for other in range(world_size())]
        try:
            answers.append([store.get(k).decode() if store.check([k]) else None for k in keys])
        except RuntimeError:
            return
