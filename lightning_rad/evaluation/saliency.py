"""How well a map of attention foretells where a reader looked: five usual measures.

Definitions as in Bylinskii et al., "What do different evaluation metrics tell us about saliency
models?" (arXiv:1604.03605). Against the density of a reader's gaze: CC, SIM, KLD; against the
fixations themselves: NSS, AUC-Judd. NaN stands for "not defined": a row without gaze, or of which
the map is not finite, is negative or has no cell above 0. A flat map foretells nothing and scores
as such: CC and NSS 0, AUC-Judd 0.5.

Shape letters: N rows, S side of a map, C = S * S cells, K fixations, padded with NaN.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating[Any]]

EPSILON: Final = 2.0**-52
FLAT: Final = 1e-6
"""Standard deviation, as a share of a map's mean, below which the map is flat."""


def cc(map_NSS: Array, target_NSS: Array) -> Floats:
    """[N] Pearson's correlation over cells, -1 to 1; 0 where either is flat."""
    p_NC, q_NC = _density(map_NSS), _density(target_NSS)
    return _where_known(p_NC, q_NC, (_standard(p_NC) * _standard(q_NC)).mean(1))


def sim(map_NSS: Array, target_NSS: Array) -> Floats:
    """[N] similarity, the mass that two densities share, 0 to 1."""
    p_NC, q_NC = _density(map_NSS), _density(target_NSS)
    return _where_known(p_NC, q_NC, np.minimum(p_NC, q_NC).sum(1))


def kld(map_NSS: Array, target_NSS: Array) -> Floats:
    """[N] divergence in nats of the target from the map, 0 where they agree.

    With epsilon 2^-52 in both places, as there, so that a cell of map 0 costs much and not all.
    """
    p_NC, q_NC = _density(map_NSS), _density(target_NSS)
    return _where_known(p_NC, q_NC, (q_NC * np.log(EPSILON + q_NC / (p_NC + EPSILON))).sum(1))


def nss(map_NSS: Array, points_NK2: Array) -> Floats:
    """[N] mean, over fixations, of the map in standard deviations from its mean.

    points_NK2: (x, y) fractions of the picture, those outside [0, 1) left out. Each fixation
    counts, also where several fall into one cell.
    """
    p_NC = _density(map_NSS)
    looks_NC = _looks(points_NK2, map_NSS.shape[-1])
    looks_N = looks_NC.sum(1)
    with np.errstate(invalid="ignore"):
        mean_N = (_standard(p_NC) * looks_NC).sum(1) / np.where(looks_N > 0, looks_N, np.nan)
    return np.where(np.isnan(p_NC).any(1), np.nan, mean_N)


def auc_judd(map_NSS: Array, points_NK2: Array) -> Floats:
    """[N] probability that a fixation lies on a higher cell than one that nobody looked at.

    The area under the curve of hits on fixations against cells never looked at, over all
    thresholds, ties counted by half. The original code joins the thresholds at fixations by
    straight lines, which adds up to 1 / (2 K). NaN where every cell was looked at.
    """
    p_NC = _density(map_NSS)
    result = np.full(len(p_NC), np.nan)
    for row, looks_C in enumerate(_looks(points_NK2, map_NSS.shape[-1])):
        seen = looks_C > 0
        if not seen.any() or seen.all() or np.isnan(p_NC[row]).any():
            continue
        others = np.sort(p_NC[row, ~seen])
        below = np.searchsorted(others, p_NC[row, seen], side="left")
        upto = np.searchsorted(others, p_NC[row, seen], side="right")
        share_P = (below + upto) / (2.0 * len(others))
        result[row] = (share_P * looks_C[seen]).sum() / looks_C.sum()
    return result


def _density(map_NSS: Array) -> Floats:
    """[N, C] of sum 1; NaN all over a row that cannot be one."""
    cells = map_NSS.shape[1] * map_NSS.shape[2]
    map_NC = map_NSS.reshape(len(map_NSS), cells).astype(np.float64)
    total_N = map_NC.sum(1)
    with np.errstate(invalid="ignore", over="ignore"):
        sound_N = np.isfinite(total_N) & (total_N > 0) & (map_NC >= 0).all(1)
    return map_NC / np.where(sound_N, total_N, np.nan)[:, None]


def _standard(p_NC: Floats) -> Floats:
    """Deviations from the mean in standard deviations; 0 all over a flat row."""
    off_NC = p_NC - p_NC.mean(1, keepdims=True)
    deviation_N1 = np.sqrt(np.square(off_NC).mean(1, keepdims=True))
    with np.errstate(invalid="ignore"):
        flat_N1 = deviation_N1 < FLAT * p_NC.mean(1, keepdims=True)
    standard: Floats = np.where(flat_N1, 0.0, off_NC / np.where(flat_N1, 1.0, deviation_N1))
    return standard


def _looks(points_NK2: Array, side: int) -> Floats:
    """[N, C] how many fixations fall into each cell."""
    looks_NC = np.zeros((len(points_NK2), side * side))
    with np.errstate(invalid="ignore"):
        inside_NK = ((points_NK2 >= 0) & (points_NK2 < 1)).all(2)
    row, place = np.nonzero(inside_NK)
    # in float64: a float32 just below 1 must not be rounded into the next cell
    cell = np.floor(points_NK2[row, place].astype(np.float64) * side).astype(np.int64)
    np.add.at(looks_NC, (row, cell[:, 1] * side + cell[:, 0]), 1.0)
    return looks_NC


def _where_known(p_NC: Floats, q_NC: Floats, value_N: Floats) -> Floats:
    unknown_N = np.isnan(p_NC).any(1) | np.isnan(q_NC).any(1)
    return np.where(unknown_N, np.nan, value_N)
