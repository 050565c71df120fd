"""What a command tells its user: the package's log, and errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_only

_AROUND = ("Does not validate", "Expected a", "Subtypes:", "Errors:", "Given value")


@contextmanager
def told() -> Iterator[None]:
    """The package's log on standard error, plain: what rank 0 says, and every rank's warnings."""
    log = logging.getLogger("lightning_rad")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.WARNING if getattr(rank_zero_only, "rank", 0) else logging.INFO)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def reason(message: str) -> str:
    """What went wrong in a class that jsonargparse made, without the list of types it tried.

    Where an optional class raises, jsonargparse (4.41 and later) reports every member of the union
    and the whole config; the first error among them is the class's own.
    """
    if not message.startswith("Does not validate against any of the Union"):
        return message
    lines = (line.strip().removeprefix("- ") for line in message.splitlines())
    return next((line for line in lines if line and not line.startswith(_AROUND)), message)
