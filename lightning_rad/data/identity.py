"""What a position in a stream means: all that the order of units rests on, as plain data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

_UNSAID: Final[dict[str, Any]] = {
    "data.shuffle.flip": 0.0,
    "data.reports": False,
    "data.gaze": False,
}
"""What an identity that does not name a setting had of it: older checkpoints know none of these."""


def without_unsaid(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without settings that have the value of those that do not name them."""
    return {k: v for k, v in identity.items() if k not in _UNSAID or v != _UNSAID[k]}


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    """What makes two identities different orders of units, one clause each."""
    for key in {**mine, **theirs}:
        was, now = (side.get(key, _UNSAID.get(key)) for side in (theirs, mine))
        same = was == now
        if key == "data.manifest":  # folders may move, data may not change
            same = list(was.values()) == list(now.values())
        if not same:
            yield f"the checkpoint was trained with {key}={was}, this run has {now}"


def resumed(
    state: Mapping[str, Any], mine: Mapping[str, Any], fresh: tuple[int, ...], *, force: bool
) -> tuple[int, ...]:
    """The positions of a checkpoint's state, in a run of the identity `mine`.

    Raises ValueError where it read other data; with `force` that is a warning, and with another
    number of sets the positions are those that the run begins at, `fresh`.
    """
    for differs in differences(state["identity"], mine):
        if not force:
            raise ValueError(
                f"cannot resume: {differs}; restore the setting, start another run from "
                "its weights (--init_from), or give --force_resume true"
            )
        log.warning("--force_resume: %s; the order of units is another", differs)
    positions = tuple(state["positions"])
    if len(positions) != len(fresh):
        log.warning("--force_resume: another number of sets: each begins anew")
        return fresh
    return positions
