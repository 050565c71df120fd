"""What a position counts: an image, a study or a patient; which images it holds, and shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Index
from lightning_rad.randomness import hash64

Unit = Literal["image", "study", "patient"]

Images = Literal["distinct", "independent"]
"""Whether the views of a unit show different images, as far as it has them, or each any of them."""


@dataclass(frozen=True, slots=True)
class Units:
    """The units of an index, in the order of its shards.

    images of unit u: image[first[u] : first[u + 1]]. shard: [N] ascending. patient: [N] int64
    view of the patient's hash, 0 where unknown.
    """

    first: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int32]
    patient: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard)


def units_of(index: Index, unit: Unit, where: npt.NDArray[np.bool_] | None = None) -> Units:
    """Group the images of an index. Studies of an unknown patient stay units of their own.

    where: [S], the studies that take part, all by default; images keep their numbers.
    """
    study = index.images["study"].astype(np.int64)
    kept = np.arange(len(study)) if where is None else np.flatnonzero(where[study])
    study = study[kept]
    patient = index.studies["patient"].view(np.int64)
    if unit == "image":
        owner = np.arange(len(study))
    elif unit == "study":
        owner = study
    elif unit == "patient":
        owner = _first_study_of_patient(patient)[study]
    else:
        raise ValueError(f"unit must be image, study or patient, got '{unit}'")
    image = np.argsort(owner, kind="stable")
    first = np.flatnonzero(np.diff(owner[image], prepend=-1))
    lead = study[image[first]]
    return Units(
        first=np.append(first, len(image)),
        image=kept[image],
        shard=index.shard_of_study[lead],
        patient=patient[lead],
    )


def shown_images(
    count_R: npt.NDArray[np.int64],
    *,
    views: int,
    images: Images,
    seed: int,
    epoch_R: npt.NDArray[np.int64],
    unit_R: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Which of its images each view of a unit shows: [V, R], numbers below count_R.

    A column is a pure function of (seed, epoch, unit) and the unit's count of images. "distinct":
    an ordered draw without replacement, each as likely; where a unit has M < V images, view v
    shows what view v mod M shows. "independent": each view draws from all of them.
    """
    view = np.arange(views)[:, None]
    bits_VR = hash64("image", seed, epoch_R, unit_R, view)
    if images == "independent":
        return (bits_VR % count_R.astype(np.uint64)).astype(np.int64)
    left_VR = np.maximum(count_R - view, 1)
    pick_VR = (bits_VR % left_VR.astype(np.uint64)).astype(np.int64)
    for v in range(1, views):  # pick v is a place among the images that are left: skip those taken
        for taken_R in np.sort(pick_VR[:v], axis=0):
            pick_VR[v] += pick_VR[v] >= taken_R
    return np.take_along_axis(pick_VR, view % count_R, axis=0)


def _first_study_of_patient(patient: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[S]: the lowest study of the same patient; a study of an unknown patient is its own."""
    own = np.arange(len(patient))
    _, first, inverse = np.unique(patient, return_index=True, return_inverse=True)
    return np.where(patient == 0, own, first[inverse])
