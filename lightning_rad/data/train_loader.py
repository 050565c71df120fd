"""The stream as Lightning iterates it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.stream import Positions, Stream


class TrainLoader:
    """The stream from where training stands, anew at each `iter`.

    `state_dict` and `load_state_dict` say to Lightning that the loader resumes; the position
    itself is the data module's.

    positions: where training stands. waited: told, in seconds, how long each batch was waited for.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        positions: Callable[[], Positions],
        waited: Callable[[float], None],
    ) -> None:
        self._stream, self._positions, self._waited = stream, positions, waited

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[StreamBatch]:
        batches = self._stream.batches(self._positions())
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            self._waited(time.perf_counter() - asked)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
