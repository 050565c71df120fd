"""Sets of radiographs that exist only as indexes, with images made up from their numbers."""

import time
from pathlib import Path

import numpy as np

from lightning_rad.manifest import IMAGE, STUDY, Index
from lightning_rad.randomness import hash64


def index_of(shards: list[list[list[int]]]) -> Index:
    """An index from nested lists: shards of patients of studies, each given by its image count."""
    studies, images, owner = [], [], []
    patient = 0
    for shard, patients in enumerate(shards):
        for counts in patients:
            patient += 1
            for count in counts:
                images += [(len(studies), ordinal, 0, 0, b"jpg") for ordinal in range(count)]
                studies.append((f"{patient}-{len(studies)}".encode(), patient, 0, 0, 0, 0, 0, 0))
                owner.append(shard)
    files = tuple(Path(f"train-{i:06d}.tar") for i in range(len(shards)))
    return Index(
        files, np.array(studies, STUDY), np.array(images, IMAGE), np.array(owner, np.int32)
    )


class MadeUpReader:
    """Stands in for `Reader`: image i is a pattern of its number, slow at times if asked to be."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay

    def pixels_or_neighbour(self, image: int) -> tuple[np.ndarray, int]:
        if self._delay and image % 7 == 0:
            time.sleep(self._delay)
        shape = (9 + image % 5, 8 + image % 3)
        return hash64("pixels", image, np.arange(shape[0] * shape[1])).reshape(shape).view(
            np.uint8
        ).reshape(*shape, 8)[..., 0].copy(), image
