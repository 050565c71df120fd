"""What a predictor of gaze knows beyond where readers look on the average.

Shape letters: N images, S side of a map, M measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.evaluation.bootstrap import Estimate, Floats, PatientBootstrap
from lightning_rad.evaluation.gaze_rows import GazeRows
from lightning_rad.evaluation.saliency import auc_judd, cc, kld, nss, sim

OF_MAPS: Final = {"cc": cc, "sim": sim, "kld": kld}
OF_POINTS: Final = {"nss": nss, "auc": auc_judd}
MEASURES: Final = (*OF_MAPS, *OF_POINTS)
SHOWN: Final = {
    "cc": "CC",
    "sim": "SIM",
    "kld": "KLD, nats (less is better)",
    "nss": "NSS",
    "auc": "AUC-Judd",
}


@dataclass(frozen=True, slots=True)
class GazeScore:
    """One measure: of the predictor, of the mean map, and their difference on the same images.

    n: images that it is over, of those with gaze.
    """

    predicted: Estimate
    mean_map: Estimate
    gain: Estimate
    n: int


def score(
    fit: GazeRows | None, rows: GazeRows, bootstrap: PatientBootstrap, *, seed: int
) -> dict[str, GazeScore]:
    """Every measure by name, the mean over images with gaze, with intervals over patients.

    fit: images whose mean map is the baseline; without gaze among them it is not defined.
    """
    target, points = (x.cpu().numpy() for x in (rows.target, rows.points))
    predicted = rows.map.cpu().numpy()
    average = np.broadcast_to(_mean_map(fit, predicted.shape[1]), predicted.shape)
    values_3NM = np.stack([_measured(m, target, points) for m in (predicted, average)])
    values_3NM = np.concatenate([values_3NM, values_3NM[:1] - values_3NM[1:]])
    known_3NM = ~np.isnan(values_3NM)
    # sums of the values and of the images they are known of: a mean is a function of these
    columns = np.stack([np.where(known_3NM, values_3NM, 0.0), known_3NM.astype(np.float64)])
    sums_NK = np.moveaxis(columns, 2, 0).reshape(len(predicted), -1)
    estimates = bootstrap.of_sums(sums_NK, rows.patient.cpu().numpy(), _means, seed=seed)
    table = [estimates[i * len(MEASURES) : (i + 1) * len(MEASURES)] for i in range(3)]
    counts = known_3NM[0].sum(0).tolist()
    rows_M = zip(MEASURES, *table, counts, strict=True)
    return {name: GazeScore(own, mean, gain, n) for name, own, mean, gain, n in rows_M}


def _measured(
    map_NSS: npt.NDArray[Any], target_NSS: npt.NDArray[Any], points_NK2: npt.NDArray[Any]
) -> Floats:
    """[N, M]"""
    found = [measure(map_NSS, target_NSS) for measure in OF_MAPS.values()]
    found += [measure(map_NSS, points_NK2) for measure in OF_POINTS.values()]
    return np.stack(found, 1)


def _mean_map(fit: GazeRows | None, side: int) -> Floats:
    """[S, S] mean density of the images with gaze; NaN where there is none."""
    if fit is None:
        return np.full((side, side), np.nan)
    target = fit.target.cpu().numpy().astype(np.float64)
    looked = target[target.sum((1, 2)) > 0]
    return looked.mean(0) if len(looked) else np.full((side, side), np.nan)


def _means(sums_RK: Floats) -> Floats:
    totals, counts = np.split(sums_RK, 2, axis=1)
    return totals / np.where(counts > 0, counts, np.nan)
