"""Randomness without state: a number is a pure function of the integers that name it.

`hash64` is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
OOPSLA 2014; constants of its public-domain C form by Vigna) used as a counter-based generator:
`hash64(a)` is output number a of the generator seeded with 0, `hash64(a, b)` is output number b
of the generator seeded with `hash64(a)`, and so on. It owes nothing to NumPy's generators, whose
streams may change between versions, and any element can be computed alone, in any order, on any
thread.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Part = int | str | npt.NDArray[np.integer[Any]]
"""What may name a random number: an integer taken modulo 2^64, a word, or an integer array."""

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def hash64(*parts: Part) -> npt.NDArray[np.uint64]:
    """64 well-mixed bits for every combination of the parts, which broadcast against each other.

    The order of the parts matters. Begin with a word for the purpose (`hash64("order", seed, ...)`)
    so that two users of one seed never share numbers. Lists of parts that differ only in the
    last, an integer, never collide.
    """
    state: npt.NDArray[np.uint64] = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _finalise(state + (_as_uint64(part) + np.uint64(1)) * _GAMMA)
    return np.asarray(state)


def uniforms(
    seed: int,
    epoch_B: npt.NDArray[np.integer[Any]],
    unit_B: npt.NDArray[np.integer[Any]],
    view: int,
    n: int,
) -> npt.NDArray[np.float64]:
    """[B, n] numbers uniform on [0, 1), multiples of 2^-53, for one view of each of B units.

    Row b depends on (seed, epoch_B[b], unit_B[b], view) alone, column j also on j but not on n.
    """
    epoch_B1, unit_B1 = np.asarray(epoch_B)[:, None], np.asarray(unit_B)[:, None]
    bits_BN = hash64("views", seed, epoch_B1, unit_B1, view, np.arange(n))
    return (bits_BN >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finalise(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def _as_uint64(part: Part) -> npt.NDArray[np.uint64]:
    if isinstance(part, str):
        return np.asarray(_word(part), np.uint64)
    if isinstance(part, np.ndarray):
        if not np.issubdtype(part.dtype, np.integer):
            raise TypeError(f"hash64 takes integers, not {part.dtype}")
        return part.astype(np.uint64, copy=False)
    return np.asarray(int(part) % 2**64, np.uint64)


@lru_cache(maxsize=256)
def _word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
