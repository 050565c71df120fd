"""How often the box of a finding lies where the annotated one does.

Pure functions. Shape letters: N images, C findings, K annotated boxes of an image, T thresholds,
R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lightning_rad.evaluation.bootstrap import Estimate, Floats, Ints, PatientBootstrap
from lightning_rad.modalities.boxes import area, iou

THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""The intersections over union that this literature asks for."""


@dataclass(frozen=True, slots=True)
class Located:
    """The share of annotated boxes that were found, at each threshold.

    of: by finding, then by threshold; NaN for a finding without a box. n: [C], the boxes of each
    finding. macro: by threshold, the mean over the findings that have a box; of a resample, over
    those that this resample has.
    """

    thresholds: tuple[float, ...]
    of: list[list[Estimate]]
    n: Ints
    macro: list[Estimate]

    @property
    def values(self) -> Floats:
        """[C, T], without the intervals."""
        return np.array([[one.value for one in row] for row in self.of])


def located(
    predicted_NC4: Tensor,
    boxes_NK4: Tensor,
    finding_NK: Tensor,
    patient_N: Ints,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    bootstrap: PatientBootstrap,
    seed: int,
    any_finding: bool = False,
) -> Located:
    """Each annotated box is found or not: by its own finding's box, at an IoU of T or more.

    predicted_NC4: a box of each finding in each image. boxes_NK4: annotated ones in the same
    pixels, NaN where there are fewer; one without area does not count. finding_NK: the column of
    each, -1 where there is none. patient_N: whose image it is, 0 where unknown; intervals are of
    resampled patients. any_finding: the best of all boxes of the image decides, at an IoU above T,
    as in VITA-Group/CheXT, which also counts pixels at both ends of a box as in it; that is more
    lenient.
    """
    counted_NK = (finding_NK >= 0) & (area(boxes_NK4) > 0)
    overlap_NCK = iou(predicted_NC4.double(), boxes_NK4.double())
    if any_finding:
        overlap_NK = overlap_NCK.amax(1)
    else:
        overlap_NK = overlap_NCK.gather(1, finding_NK.clamp(min=0)[:, None])[:, 0]
    findings, levels = predicted_NC4.shape[1], len(thresholds)
    least_T = torch.tensor(thresholds, dtype=torch.float64)
    reached = torch.gt if any_finding else torch.ge
    hit_NKT = reached(overlap_NK[..., None], least_T) & counted_NK[..., None]
    own_NKC = (finding_NK[..., None] == torch.arange(findings)) & counted_NK[..., None]
    boxes_NC = own_NKC.sum(1).double()
    hits_NCT = torch.einsum("nkc,nkt->nct", own_NKC.double(), hit_NKT.double())

    def shares(sums_RK: Floats) -> Floats:
        """[R, C T + T]: of each finding at each threshold, then of all."""
        hits_RCT = sums_RK[:, findings:].reshape(-1, findings, levels)
        with np.errstate(invalid="ignore"):
            share_RCT = hits_RCT / sums_RK[:, :findings, None]
            present_RC1 = sums_RK[:, :findings, None] > 0
            mean_RT = np.where(present_RC1, share_RCT, 0.0).sum(1) / present_RC1.sum(1)
        return np.concatenate([share_RCT.reshape(len(sums_RK), -1), mean_RT], axis=1)

    rows_NK = torch.cat([boxes_NC, hits_NCT.flatten(1)], 1).numpy()
    flat = bootstrap.of_sums(rows_NK, patient_N, shares, seed=seed)
    of = [flat[c * levels : (c + 1) * levels] for c in range(findings)]
    n = boxes_NC.sum(0).numpy().astype(np.int64)
    return Located(tuple(thresholds), of, n, flat[findings * levels :])
