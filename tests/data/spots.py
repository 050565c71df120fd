"""Predicted maps that tell which image they are of."""

from pathlib import Path
from typing import Any

import numpy as np

from lightning_rad.data.reader import Reader
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.modalities.gaze import Saliency, packed
from tests.data.reports import source_of

SIDE = 24
RECORDED = Saliency("recorded", side=SIDE)
PREDICTED = Saliency("predicted", side=SIDE)
BOTH = Saliency("both", side=SIDE)
SHUFFLED = Saliency("shuffled", side=SIDE)


def maps_of(*shards: Path) -> SaliencyMaps:
    return SaliencyMaps(Reader([source_of(folder) for folder in shards]))


def everything(shards: Path) -> list[int]:
    return list(range(len(source_of(shards).index.images)))


def spot(image: int) -> np.ndarray:
    """A map that tells which image it is of."""
    map_SS = np.zeros((16, 16))
    map_SS[image // 16 % 16, image % 16] = 1.0
    return map_SS


def of_spots(image: int, entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"saliency": packed(spot(image))}
