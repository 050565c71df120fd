"""Shards once more, with a predicted map of attention in the record of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.manifest import Manifest
from lightning_rad.modalities.gaze import packed
from lightning_rad.sharding.rewrite import Rewriting, rewrite
from lightning_rad.sharding.rewritten_shard import Study

Map = npt.NDArray[np.uint8]
Predict = Callable[[Sequence[tuple[bytes, str]]], Sequence[Map | None]]
"""Encoded images and their suffixes -> a map [S, S] over each whole picture, of any scale; None for
an image that cannot be decoded."""

FIELD: Final = "saliency"
UNREADABLE: Final = "unreadable image"


def annotate(
    shards: Path,
    out: Path,
    predict: Predict,
    *,
    details: Mapping[str, Any],
    batch: int = 64,
    overwrite: bool = False,
) -> Manifest:
    """Write shards anew, each image's record with the map that `predict` makes of it.

    Every other member, the order, keys and splits stay as they are; the `saliency` that a record
    had is replaced. Of shards of other software that `shards index` made readable, a record gains a
    list `images` where it has none, and a sample without a record gets one. An image that cannot be
    decoded gets no map and is counted.

    Args:
        shards: Folder with a manifest, of `shards build` or `shards index`.
        out: Folder of the new shards; made where missing.
        predict: Makes the maps.
        details: What the maps depend on, as JSON values: the checkpoint's identity and all else.
            Kept in the manifest.
        batch: Images that are predicted at a time, more by a study at most.
        overwrite: Replace whatever shards lie in `out`.

    Continues after a crash and raises ValueError as `rewrite` does.
    """
    if batch < 1:
        raise ValueError(f"annotate.batch: {batch} is not at least 1")
    how = Rewriting(
        name="annotated",
        details=details,
        left="without_map",
        change=lambda studies: _annotate(studies, predict),
        batch=batch,
        foreign=True,
    )
    return rewrite(shards, out, how, overwrite=overwrite)


def _annotate(studies: Sequence[Study], predict: Predict) -> list[tuple[str, str]]:
    """Put maps into the records of some studies; the images without one."""
    shown = [(study, picture) for study in studies for picture in study.pictures]
    maps = predict([(study.members[p.suffix], p.kind) for study, p in shown])
    found: dict[str, dict[str, Map | None]] = {study.key: {} for study in studies}
    for (study, p), map_SS in zip(shown, maps, strict=True):
        found[study.key][f"{p.ordinal:02d}.{p.kind}"] = map_SS
    for study in studies:
        if study.pictures:
            study.keep(_record(study, found[study.key]))
    return [
        (f"{key} image {file}", UNREADABLE)
        for key, of_study in found.items()
        for file, map_SS in of_study.items()
        if map_SS is None
    ]


def _record(study: Study, maps: Mapping[str, Map | None]) -> dict[str, Any]:
    """What is known of a study, with the maps of its images, by file; those of before go."""
    record = study.record()
    images = record.setdefault("images", []) if isinstance(record, dict) else None
    if not isinstance(images, list) or not all(isinstance(entry, dict) for entry in images):
        raise ValueError(
            f"annotate: the JSON of '{study.key}' has no place for maps, a list 'images'"
        )
    for file, map_SS in maps.items():
        entry = next((e for e in images if _ordinal(e) == int(file.partition(".")[0])), None)
        if entry is None:
            images.append(entry := {"file": file})
        entry.pop(FIELD, None)
        if map_SS is not None:
            entry[FIELD] = packed(map_SS)
    kept: dict[str, Any] = record
    return kept


def _ordinal(entry: Mapping[str, Any]) -> int:
    """Which image an entry is of, as readers take it (`manifest.image_entry`); -1 for none."""
    number = str(entry.get("file", "")).partition(".")[0]
    return int(number) if number.isdecimal() else -1
