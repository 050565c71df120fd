"""From the settings to a rank's part of the stream."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightning_rad.data.ahead import ReadAhead
from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.identity import without_unsaid
from lightning_rad.data.mixture import Weight, build_parts, check_ranks
from lightning_rad.data.reader import Reader
from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.data.stream import Stream
from lightning_rad.data.units import Unit
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.manifest import Manifest, load_manifest
from lightning_rad.storage.settings import Remote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """A rank's stream, and what a position in it means: compared when a run is resumed."""

    stream: Stream
    identity: dict[str, Any]


def open_sets(
    paths: Iterable[str], remote: Remote, share: Share, shuffle: Shuffle
) -> dict[str, Manifest]:
    """The manifests of some sets, read once ranks and groups are known to go together."""
    check_ranks(share.ranks, shuffle.groups)
    return {path: load_manifest(path, remote) for path in paths}


def plan_stream(
    manifests: Mapping[str, Manifest],
    weights: Mapping[str, Weight],
    views: Sequence[ViewRecipe],
    share: Share,
    *,
    unit: Unit,
    global_batch: int,
    shuffle: Shuffle,
    loading: Loading,
    asked: Asked,
) -> Planned:
    """Open the train splits of some manifests. Raises ValueError for what cannot be divided.

    asked: what is read beside pixels; where that is reports or recorded gaze, only studies that
    have them take part.
    """
    wanted = {p: member for p, m in manifests.items() if (member := asked.member(m)) is not None}
    parts, sources = build_parts(
        manifests,
        weights,
        split="train",
        unit=unit,
        global_batch=global_batch,
        shuffle=shuffle,
        wanted=wanted,
    )
    reader = Reader(sources, max_bad_fraction=loading.max_bad_fraction)
    stream = Stream(
        parts,
        reader,
        views,
        seed=shuffle.seed,
        images=shuffle.images,
        rank=share.rank,
        ranks=share.ranks,
        loading=loading,
    )
    stream.expecting = [
        ReadAhead(source, part.order, part.units, part.share, share)
        for source, part in zip(sources, parts, strict=True)
    ]
    stream.reading, stream.flip = asked.reports, shuffle.flip
    stream.evidence = asked.evidence(reader, hides=True)
    looked = [wanted.get(path) == "gaze" for path in manifests]  # one a set, as data.manifest
    identity = {
        "data.manifest": {path: manifests[path].digest for path in manifests},
        "data.unit": unit,
        "data.shuffle.seed": shuffle.seed,
        "data.shuffle.groups": shuffle.groups,
        "data.shuffle.window": shuffle.window,
        "data.shuffle.images": shuffle.images,
        "data.shuffle.separation": [part.order.separation for part in parts],
        "data.shuffle.flip": shuffle.flip,
        "data.reports": "report" in wanted.values(),
        "data.gaze": looked if any(looked) else False,
    }
    return Planned(stream, without_unsaid(identity))


def rendering(loading: Loading, device: torch.device) -> Loading:
    """The settings with `render: auto` decided by the device that trains."""
    if loading.render != "auto":
        return loading
    return replace(loading, render="device" if device.type == "cuda" else "cpu")
