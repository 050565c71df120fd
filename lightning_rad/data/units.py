"""What a position counts: an image, a study or a patient, and which images each unit holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Index

Unit = Literal["image", "study", "patient"]


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


def units_of(index: Index, unit: Unit) -> Units:
    """Group the images of an index. Studies of an unknown patient stay units of their own."""
    study = index.images["study"].astype(np.int64)
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
        image=image,
        shard=index.shard_of_study[lead],
        patient=patient[lead],
    )


def _first_study_of_patient(patient: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[S]: the lowest study of the same patient; a study of an unknown patient is its own."""
    own = np.arange(len(patient))
    _, first, inverse = np.unique(patient, return_index=True, return_inverse=True)
    return np.where(patient == 0, own, first[inverse])
