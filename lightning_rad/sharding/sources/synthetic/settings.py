"""What the synthetic sources share: checked arguments, and a number a patient without a loop."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lightning_rad.randomness import hash64


def whole(name: str, value: int, low: int, high: int) -> int:
    """The value, if it is a whole number from low to high. Raises ValueError, naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a whole number from {low} to {high}")
    return value


def share(name: str, value: float) -> float:
    """The value, if it is a number from 0 to 1. Raises ValueError, naming it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value!r}: must be a number from 0 to 1")
    return float(value)


def uniform(kind: str, seed: int, slot: int, patients: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every patient; `slot` tells one such draw from another."""
    name = hash64(kind, seed, slot, np.arange(patients))
    return np.asarray(name >> np.uint64(11), np.float64) / 2.0**53
