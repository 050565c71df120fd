"""Maps of where readers looked, recorded or predicted, of images by their number in a reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.reader import Reader
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.views.params import MAX_SIDE
from lightning_rad.modalities.gaze import Map, Saliency, Source, heat_map, unpacked
from lightning_rad.randomness import hash64

_TRIES: Final = 64


class SaliencyMaps:
    """Reads maps of attention; safe to use from many threads, keeps none.

    What is damaged counts as not there: the image stays, without a map, which the reader counts and
    logs (`Reader.say_without`).
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pools: dict[ShardSource, npt.NDArray[np.int64]] = {}

    def of(self, images: Sequence[int], saliency: Saliency) -> list[Map | None]:
        """[S, S] over all of each image, of sum 1, or None where nobody looked.

        S is `saliency.side` of a recorded map and its own of a predicted one. shuffled: an image
        that has a map (recorded, else predicted) gets that of another patient's image of the same
        set, always the same one; where patients are unknown, of another study's.
        """
        made = {int(image): self._of(int(image), saliency) for image in dict.fromkeys(images)}
        return [made[int(image)] for image in images]

    def _of(self, image: int, saliency: Saliency) -> Map | None:
        if saliency.source != "shuffled":
            return self._own(image, saliency, saliency.source)
        if self._own(image, saliency, "both") is None:
            return None
        source, local = self._reader.place(image)
        pool = self._pool(source)
        draws = hash64("shuffled gaze", 0, image, np.arange(_TRIES)) % np.uint64(len(pool))
        for candidate in pool[draws.astype(np.int64)].tolist():
            if _same_patient(source, local, candidate):
                continue
            other = self._own(image - local + candidate, saliency, "both")
            if other is not None:
                return other
        return None

    def _own(self, image: int, saliency: Saliency, kind: Source) -> Map | None:
        if kind in ("recorded", "both"):
            map_SS = self._recorded(image, saliency)
            if map_SS is not None or kind == "recorded":
                return map_SS
        return self._predicted(image)

    def _recorded(self, image: int, saliency: Saliency) -> Map | None:
        source, local = self._reader.place(image)
        try:
            fixations = source.fixations(local)
            if not fixations:
                return None
            size = self._size(image)
            return heat_map(fixations, size, side=saliency.side, spread=saliency.spread)
        except BadSampleError as error:
            self._reader.say_without(image, "gaze", error)
            return None

    def _predicted(self, image: int) -> Map | None:
        source, local = self._reader.place(image)
        try:
            text = source.entry(local).get("saliency")
            map_SS = None if text is None else unpacked(text)
        except BadSampleError as error:
            self._reader.say_without(image, "gaze", error)
            return None
        except ValueError as error:
            study = int(source.index.images[local]["study"])
            named = BadSampleError(f"{source.name(study)}: {error}")
            self._reader.say_without(image, "gaze", named)
            return None
        return map_SS if map_SS is not None and map_SS.any() else None

    def _size(self, image: int) -> tuple[int, int]:
        """Height and width, of the record where it says them, else of the decoded image."""
        source, local = self._reader.place(image)
        entry: dict[str, Any] = source.entry(local)
        height, width = entry.get("height"), entry.get("width")
        if (
            isinstance(height, int)
            and isinstance(width, int)
            and 1 <= min(height, width) <= max(height, width) <= MAX_SIDE
        ):
            return height, width
        pixels = self._reader.pixels(image)
        return pixels.shape[0], pixels.shape[1]

    def _pool(self, source: ShardSource) -> npt.NDArray[np.int64]:
        """Images whose maps others get: those with gaze, or all where nobody recorded any."""
        if source not in self._pools:
            looked = source.index.studies["gaze_size"][source.index.images["study"]] > 0
            self._pools[source] = np.flatnonzero(looked if looked.any() else ~looked)
        return self._pools[source]


def _same_patient(source: ShardSource, one: int, other: int) -> bool:
    study = source.index.images["study"][[one, other]]
    patient = source.index.studies["patient"][study]
    return bool(study[0] == study[1] or (patient[0] == patient[1] and patient[0] != 0))
