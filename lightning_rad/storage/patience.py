"""Doing a thing again that failed for a while: exponential pauses with full jitter, and an end."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from lightning_rad.storage.settings import StorageError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 20.0
_JITTER: Final = random.SystemRandom()
"""Of its own: pauses are no part of what a run's seed decides."""


class PassingError(Exception):
    """A failure that may be over at the next try: 5xx, 429, a reset, a stall, half an answer."""


class Patience:
    """Does things again after PassingError, up to so many times.

    The pause before try n is drawn from [0, min(20, 2**n / 4)] seconds ("full jitter": clients that
    failed together do not come back together). sleep is `time.sleep` unless a test says otherwise.
    """

    def __init__(self, retries: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._retries, self._sleep = retries, sleep

    def __call__(self, what: str, do: Callable[[], Result]) -> Result:
        """What `do` returns. Raises StorageError, naming `what`, after the last try."""
        for n in range(self._retries + 1):
            try:
                return do()
            except PassingError as error:
                if n == self._retries:
                    tries = f"{n + 1} tries" if n else "1 try"
                    raise StorageError(f"{what}: {error}, after {tries}") from None
                log.debug("%s: %s; again", what, error)
            self._sleep(_JITTER.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**n)))
        raise AssertionError("the last try returns or raises")
