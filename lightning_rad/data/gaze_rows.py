"""Where readers looked at a batch's images, as its views show it.

Shape letters: V views, R rows, S side of a map, K fixations of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lightning_rad.data.reader import Reader
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.data.source import BadSampleError
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.placement import map_seen, seen_at
from lightning_rad.modalities.gaze import Map, Saliency, inside
from lightning_rad.schema import Gaze

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looked:
    """At one image: map [S, S] over all of it, or None; points [K, 2], fractions of its sides."""

    map: Map | None
    points: Floats


class GazeReader:
    """Maps and fixations of images by their number in the reader; safe to use from many threads.

    The map is the one that `saliency` asks for; the points are the image's own recorded fixations,
    whatever map it is. Gaze that cannot be understood counts as none, logged once a study.
    """

    def __init__(self, reader: Reader, saliency: Saliency) -> None:
        self._reader, self._saliency = reader, saliency
        self._maps = SaliencyMaps(reader)

    @property
    def side(self) -> int:
        """S."""
        return self._saliency.side

    def of(self, images: Sequence[int]) -> list[Looked]:
        """Of each of some images."""
        maps = self._maps.of(images, self._saliency)
        return [Looked(m, self._points(i)) for i, m in zip(images, maps, strict=True)]

    def _points(self, image: int) -> Floats:
        source, local = self._reader.place(image)
        try:
            return np.asarray(inside(source.fixations(local))[:, :2])
        except BadSampleError as error:
            self._reader.say_without(image, "gaze", error)
            return np.empty((0, 2))


class GazeRows:
    """Collects where views of R rows were looked at, put in from any thread, each once.

    side: S of the maps.
    """

    def __init__(self, views: int, rows: int, side: int) -> None:
        self._map = np.zeros((views, rows, side, side), np.float32)
        self._points = [[np.empty((0, 2))] * rows for _ in range(views)]

    def put(self, row: int, view: int, looked: Looked, params: ViewParams, at: int) -> None:
        """Keep where the image that a view shows was looked at; as row `at` of the parameters."""
        if looked.map is not None:
            seen = map_seen(looked.map, params, at, self._map.shape[-1])
            if (total := seen.sum(dtype=np.float64)) > 0:
                self._map[view, row] = seen / total
        if len(looked.points):
            height, width = params.sizes[at].tolist()
            out = np.array(params.shape[::-1], np.float64)
            places = seen_at(looked.points * [width, height], params, at) / out
            self._points[view][row] = places[((places >= 0) & (places < 1)).all(1)]

    def tensors(self, *, pin: bool = False) -> Gaze:
        """All rows, [V, R, ...]; as many places for points as the row with the most has."""
        views, rows = self._map.shape[:2]
        most = max((len(places) for view in self._points for places in view), default=0)
        points = np.full((views, rows, most, 2), np.nan, np.float32)
        for view, row in np.ndindex(views, rows):
            points[view, row, : len(self._points[view][row])] = self._points[view][row]
        tensors = [torch.from_numpy(array) for array in (self._map, points)]
        return Gaze(*(tensor.pin_memory() if pin else tensor for tensor in tensors))
