"""How well an ordered grade is told, where its levels are labels of which one is 1.

The grade said is the level with the highest score. Accuracy; the mean absolute error in grades;
and Cohen's kappa with quadratic weights (Psychological Bulletin 70, 1968), which is 1 for the
truth and 0 for what chance would agree on. N images, G levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from lightning_rad.evaluation.bootstrap import Estimate, Floats, Ints, PatientBootstrap


@dataclass(frozen=True, slots=True)
class Grades:
    """What a score is worth as a grade. n: images scored. left_out: without one known grade."""

    accuracy: Estimate
    mae: Estimate
    kappa: Estimate
    n: int
    left_out: int


def graded(
    log_odds_NG: Floats,
    labels_NG: Floats,
    patient: Ints,
    bootstrap: PatientBootstrap,
    seed: int,
) -> Grades:
    """Score the levels with the highest log-odds against those labelled 1.

    A level without scores (NaN: nothing taught it) is never said; of equal scores the lower grade
    is. labels_NG: 1, 0 or NaN; images without exactly one 1 are left out and counted. patient:
    [N], whose an image is. The numbers are NaN where no image is left or one has no score.
    """
    known = (labels_NG == 1).sum(1) == 1
    scores = np.where(np.isnan(log_odds_NG[known]), -math.inf, log_odds_NG[known])
    n, levels = scores.shape
    cells = np.zeros((n, levels * levels))
    if n and np.isneginf(scores).all(1).any():
        cells[:] = math.nan
    else:
        told = labels_NG[known].argmax(1) * levels + scores.argmax(1)
        cells[np.arange(n), told] = 1.0

    def statistic(sums: Floats) -> Floats:
        return _numbers(sums.reshape(-1, levels, levels))

    accuracy, mae, kappa = bootstrap.of_sums(cells, patient[known], statistic, seed=seed)
    return Grades(accuracy, mae, kappa, n, len(known) - n)


def _numbers(counts_RGG: Floats) -> Floats:
    """[R, 3] accuracy, error and kappa of confusions (truth, said); NaN where not defined."""
    level = np.arange(counts_RGG.shape[1], dtype=np.float64)
    apart = np.abs(level[:, None] - level)
    total = counts_RGG.sum((1, 2))
    chance = counts_RGG.sum(2)[:, :, None] * counts_RGG.sum(1)[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        right = np.trace(counts_RGG, axis1=1, axis2=2) / total
        error = (apart * counts_RGG).sum((1, 2)) / total
        # 0 / 0 where truth and answer are one and the same level throughout
        ratio = (apart**2 * counts_RGG).sum((1, 2)) * total / (apart**2 * chance).sum((1, 2))
    return np.stack([right, error, 1.0 - ratio], axis=1)


def name_of(levels: Sequence[str]) -> str:
    """What the labels of one grade are called together: what their names begin with alike."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*levels, strict=False))
    start = "".join(letters[0] for letters in alike)
    return start.rstrip("_- ") if start.endswith(("_", "-", " ")) else levels[0]


def columns_of(
    exclusive: Sequence[Sequence[str]], labels: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """The columns of every grade's levels, in their order. Raises ValueError for a wrong name."""
    for levels in exclusive:
        if isinstance(levels, str) or len(levels) < 2 or len(set(levels)) < len(levels):
            raise ValueError(
                f"probe.exclusive: a grade is a list of two or more labels, each once, "
                f"not {levels!r}"
            )
        for level in levels:
            if level not in labels:
                raise ValueError(
                    f"probe.exclusive names '{level}', which is no label; there are "
                    f"{', '.join(labels)}"
                )
    return tuple(tuple(labels.index(level) for level in levels) for levels in exclusive)
