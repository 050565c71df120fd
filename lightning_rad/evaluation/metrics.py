"""AUROC and average precision of several findings, where labels may be unknown, over resamples.

Shapes: N rows (images), C findings, R resamples, P patients, p positives and n negatives of one
finding.

Sort the positives and the negatives of a finding by score once. For positive i let lo_i and hi_i
count the negatives that score below it and not above it, and let C be the running sum of the
negatives' weights. Then, for integer or real row weights w,

    AUROC = sum_i w_i (C[lo_i] + C[hi_i]) / (2 W_p W_n)
    AP    = sum_i w_i T_i / (T_i + W_n - C[lo_i]) / W_p

with T_i the weight of positives that score at least as high as i: ties count one half in the
first and share one threshold in the second. A resample of the patients changes only w, so it
costs a running sum and no sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_rad.evaluation.bootstrap import Estimate, Floats, Ints, PatientBootstrap

Weights = npt.NDArray[np.int32] | Floats


class Ranking:
    """The known rows of one finding, sorted by score, ready to be weighted many times.

    score, label: [N]; label 1, 0, or NaN where unknown. owner: [N] column of the weights that
    each row takes its weight from.
    """

    def __init__(self, score: Floats, label: Floats, owner: Ints) -> None:
        known = ~np.isnan(label)
        if not np.isin(label[known], (0.0, 1.0)).all():
            raise ValueError("a label must be 1 (present), 0 (absent) or NaN (unknown)")
        order = np.argsort(score, kind="stable")
        positive, negative = order[label[order] == 1], order[label[order] == 0]
        self._owner_p, self._owner_n = owner[positive], owner[negative]
        self._own = np.searchsorted(score[positive], score[positive], side="left")
        self._below = np.searchsorted(score[negative], score[positive], side="left")
        self._upto = np.searchsorted(score[negative], score[positive], side="right")
        self._finite = bool(np.isfinite(score[known]).all())

    def weigh(self, weight: Weights) -> tuple[Floats, Floats]:
        """AUROC [R] and average precision [R] under each row of weight [R, owners].

        NaN where one class has no weight, or where a score is not finite.
        """
        if not self._finite:
            return np.full(len(weight), np.nan), np.full(len(weight), np.nan)
        weight_p = weight[:, self._owner_p]
        sum_p, sum_n = _running(weight_p), _running(weight[:, self._owner_n])
        total_p, total_n = sum_p[:, -1:], sum_n[:, -1:]
        below, upto = sum_n[:, self._below], sum_n[:, self._upto]
        reached = total_p - sum_p[:, self._own]
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc = (weight_p * (below + upto)).sum(1) / (2.0 * total_p * total_n)[:, 0]
            precision = np.where(weight_p > 0, reached / (reached + (total_n - below)), 0.0)
            ap = (weight_p * precision).sum(1) / total_p[:, 0]
        one_class = (total_p[:, 0] <= 0) | (total_n[:, 0] <= 0)
        return np.where(one_class, np.nan, auroc), np.where(one_class, np.nan, ap)


def _running(weight: Weights) -> Floats:
    """Sums of the first 0, 1, ... columns, exact for integers."""
    result = np.zeros((weight.shape[0], weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=result[:, 1:])
    return result


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of every finding, on all patients and on resampled ones.

    values: [C]; replicates: [R, C]; NaN where a finding has one class. `a - b` is the paired
    difference of two encoders.
    """

    values: Floats
    replicates: Floats
    bootstrap: PatientBootstrap

    def __sub__(self, other: Measured) -> Measured:
        return Measured(
            self.values - other.values,
            self.replicates - other.replicates,
            self.bootstrap,
        )

    def finding(self, column: int) -> Estimate:
        """The metric of one finding with its interval."""
        return self.bootstrap.estimate(float(self.values[column]), self.replicates[:, column])

    @property
    def macro_findings(self) -> int:
        """How many findings the macro mean is over: those whose value is defined."""
        return int((~np.isnan(self.values)).sum())

    def macro(self) -> Estimate:
        """The mean over the findings that are defined, with its interval.

        In a resample the mean is over the findings that this resample defines; `dropped` counts
        the resamples that lost one or more of them, or all: those enter with what is left.
        """
        used = ~np.isnan(self.values)
        if not used.any():
            return Estimate(np.nan, dropped=len(self.replicates))
        replicates = self.replicates[:, used]
        present = ~np.isnan(replicates)
        with np.errstate(invalid="ignore"):
            means = np.where(present, replicates, 0.0).sum(1) / present.sum(1)
        estimate = self.bootstrap.estimate(float(self.values[used].mean()), means)
        incomplete = int((~present.all(1)).sum())
        return Estimate(estimate.value, estimate.low, estimate.high, incomplete)


@dataclass(frozen=True, slots=True)
class Discrimination:
    """How well scores tell present from absent."""

    auroc: Measured
    ap: Measured


def measure(
    scores_NC: Floats,
    labels_NC: Floats,
    patient_N: Ints,
    bootstrap: PatientBootstrap,
    *,
    seed: int,
) -> Discrimination:
    """AUROC and average precision of every finding, and the same over resampled patients.

    patient_N: numbers 0, 1, ... as from `clusters`. The same patients, samples and seed give the
    same resamples, so the results of two encoders are paired.
    """
    rankings = [
        Ranking(scores_NC[:, c], labels_NC[:, c], patient_N) for c in range(labels_NC.shape[1])
    ]
    patients = int(patient_N.max()) + 1 if len(patient_N) else 0
    value = _weigh_all(rankings, np.ones((1, patients), np.int32))
    shape = (bootstrap.samples, len(rankings))
    replicates = np.full((2, *shape), np.nan)
    done = 0
    for block in bootstrap.multiplicities(patients, len(patient_N), seed):
        replicates[:, done : done + len(block)] = _weigh_all(rankings, block)
        done += len(block)
    return Discrimination(
        auroc=Measured(value[0, 0], replicates[0], bootstrap),
        ap=Measured(value[1, 0], replicates[1], bootstrap),
    )


def _weigh_all(rankings: list[Ranking], weight: Weights) -> npt.NDArray[Any]:
    """[2, R, C]: AUROC and average precision of every finding."""
    result = np.full((2, len(weight), len(rankings)), np.nan)
    for column, ranking in enumerate(rankings):
        result[:, :, column] = ranking.weigh(weight)
    return result
