"""The real stream of one rank of one, as benchmarks of the data path run it."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.planning import open_sets, plan_stream
from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.data.stream import Stream
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.manifest import Manifest
from lightning_rad.storage.settings import Remote

WHOLE = Share(0, 1)


def opened(name: str, remote: Remote, shuffle: Shuffle) -> Mapping[str, Manifest]:
    return open_sets([name], remote, WHOLE, shuffle)


def stream_over(sets: Mapping[str, Manifest], shuffle: Shuffle, batch: int) -> Stream:
    """Images in two views of 224 pixels, threads and batches ahead as by default."""
    views = [RandomView(224, crop=Crop(flip=0.5)) for _ in range(2)]
    return plan_stream(
        sets,
        dict.fromkeys(sets, 1.0),
        views,
        WHOLE,
        unit="image",
        global_batch=batch,
        shuffle=shuffle,
        loading=Loading(),
        asked=Asked(),
    ).stream
