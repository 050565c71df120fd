"""Resampling patients with replacement: how much a number would move with other patients.

Images of one patient are alike, so the patient is what is drawn; drawing images would pretend to
more evidence than there is and give intervals that are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_CHUNK_ELEMENTS = 1 << 19


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its percentile interval, and the resamples in which it was not defined.

    NaN stands for "not defined": the value where a finding has one class only, the interval
    where fewer than two resamples define the number.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    dropped: int = 0


@dataclass(frozen=True)  # no slots: jsonargparse reads defaults with vars()
class PatientBootstrap:
    """How many resamples of the patients are drawn, and the confidence of their intervals.

    Args:
        samples: Resamples drawn; 0 gives no intervals.
        confidence: Probability that a percentile interval aims at, above 0 and below 1.
    """

    samples: int = 1000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ValueError(f"bootstrap.samples must be 0 or more, not {self.samples}")
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(
                f"bootstrap.confidence must lie between 0 and 1, both excluded, "
                f"not {self.confidence}"
            )

    def multiplicities(
        self, patients: int, rows: int, seed: int
    ) -> Iterator[npt.NDArray[np.int32]]:
        """How often each resample holds each patient: blocks [r, patients], `samples` rows in all.

        rows: images to be weighted; blocks are cut so that one number a row and resample of a
        block stays in cache. The draws depend on `patients`, `samples` and `seed` alone.
        """
        generator = np.random.default_rng(seed)
        block = max(1, _CHUNK_ELEMENTS // max(rows, patients, 1))
        for start in range(0, self.samples if patients else 0, block):
            count = min(block, self.samples - start)
            drawn = generator.integers(patients, size=(count, patients))
            drawn += np.arange(count)[:, None] * patients
            counts = np.bincount(drawn.ravel(), minlength=count * patients)
            yield counts.reshape(count, patients).astype(np.int32)

    def estimate(self, value: float, replicates: Floats) -> Estimate:
        """The number with the percentile interval of its replicates ([resamples], NaN dropped)."""
        kept = replicates[~np.isnan(replicates)]
        dropped = len(replicates) - len(kept)
        if len(kept) < 2 or math.isnan(value):
            return Estimate(value, dropped=dropped)
        tail = (1.0 - self.confidence) / 2.0
        low, high = np.quantile(kept, [tail, 1.0 - tail])
        return Estimate(value, float(low), float(high), dropped)

    def of_sums(
        self,
        rows_NK: Floats,
        patient_N: Ints,
        statistic: Callable[[Floats], Floats],
        *,
        seed: int,
    ) -> list[Estimate]:
        """Numbers that are functions of sums over rows (means, rates), with their intervals.

        rows_NK: what each row adds. patient_N: whose it is, 0 where unknown. statistic: turns sums
        [R, K] into numbers [R, M], NaN where one is not defined. The same patients and seed draw
        the same resamples.
        """
        owner_N = clusters(patient_N)
        patients = int(owner_N.max()) + 1 if len(owner_N) else 0
        own_PK = np.zeros((patients, rows_NK.shape[1]))
        np.add.at(own_PK, owner_N, rows_NK)
        values = statistic(own_PK.sum(0, keepdims=True))[0]
        blocks = self.multiplicities(patients, len(owner_N), seed)
        drawn = [statistic(count_RP @ own_PK) for count_RP in blocks]
        replicates = np.concatenate([np.empty((0, len(values))), *drawn])
        return [self.estimate(float(v), replicates[:, m]) for m, v in enumerate(values)]


def clusters(patient: Ints) -> Ints:
    """Number the patients of some rows 0, 1, ...; a row of patient 0 (unknown) is one of its own.

    patient: [N]. The numbering follows the patient's value, then the order of unknown rows.
    """
    unknown = patient == 0
    known, numbers = np.unique(patient[~unknown], return_inverse=True)
    result = np.empty(len(patient), np.int64)
    result[~unknown] = numbers
    result[unknown] = len(known) + np.arange(unknown.sum())
    return result
