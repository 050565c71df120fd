"""Ranges that a user sets: checked, with an error that names the key, and drawn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bound = float | npt.NDArray[np.float64]


def check_within(key: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{key}: {value} is out of range; accepted: {low} to {high}")


def check_interval(key: str, value: tuple[float, float], low: float, high: float) -> None:
    """Raise ValueError unless value is an interval (a, b) with low <= a <= b <= high."""
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(
            f"{key}: {list(value)} is not accepted; give [a, b] with {low} <= a <= b <= {high}"
        )


def between(share: npt.NDArray[np.float64], low: Bound, high: Bound) -> npt.NDArray[np.float64]:
    """Points of intervals, at shares 0 (low) to 1 (high)."""
    return low + (high - low) * share
