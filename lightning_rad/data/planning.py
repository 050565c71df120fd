"""From the settings of a data module to what one rank reads: the stream, the evaluation rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from lightning_rad.data.identity import without_unsaid
from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.mixture import build_parts, check_ranks
from lightning_rad.data.reader import Reader
from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.source import ShardSource
from lightning_rad.data.stream import Stream
from lightning_rad.data.study_loader import LabelledStudies
from lightning_rad.data.units import Unit
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.manifest import Manifest, load_index, load_manifest
from lightning_rad.modalities.reading import Reading

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """Which of how many ranks is planned for."""

    rank: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A rank's stream, and what a position in it means: compared when a run is resumed."""

    stream: Stream
    identity: dict[str, Any]


def require_whole_studies(
    weights: Mapping[str, float], views: Sequence[ViewRecipe], unit: Unit
) -> None:
    """Raise ValueError where a batch could hold images beside a report that is not theirs.

    That is a set without reports, units of several reports, and views that are mirrored one by one.
    """
    for path in weights:
        manifest = load_manifest(path)
        if "report" not in manifest.fields:
            raise ValueError(
                f"data.manifest {path} has no reports, which the objective reads: its fields are "
                f"{list(manifest.fields)}"
            )
    if unit == "patient":
        raise ValueError(
            "data.unit=patient has several reports: where reports are read it is study or image"
        )
    for number, view in enumerate(views):
        flip = getattr(getattr(view, "crop", None), "flip", 0.0)
        if flip > 0:
            raise ValueError(
                f"data.views[{number}].crop.flip is {flip}: where reports are read it is 0, and "
                "data.shuffle.flip mirrors all views of a study together with its words of side"
            )


def plan_stream(
    weights: Mapping[str, float],
    views: Sequence[ViewRecipe],
    share: Share,
    *,
    unit: Unit,
    global_batch: int,
    shuffle: Shuffle,
    loading: Loading,
    reading: Reading | None = None,
) -> Planned:
    """Open the train splits of some manifests. Raises ValueError for what cannot be divided.

    reading: how reports are read, if they are; then only studies that have one take part.
    """
    check_ranks(share.ranks, shuffle.groups)
    manifests = {path: load_manifest(path) for path in weights}
    parts, sources = build_parts(
        manifests,
        weights,
        split="train",
        unit=unit,
        global_batch=global_batch,
        shuffle=shuffle,
        reports=reading is not None,
    )
    stream = Stream(
        parts,
        Reader(sources, max_bad_fraction=loading.max_bad_fraction),
        views,
        seed=shuffle.seed,
        images=shuffle.images,
        rank=share.rank,
        ranks=share.ranks,
        loading=loading,
    )
    stream.reading, stream.flip = reading, shuffle.flip
    identity = {
        "data.manifest": {path: manifests[path].digest for path in manifests},
        "data.unit": unit,
        "data.shuffle.seed": shuffle.seed,
        "data.shuffle.groups": shuffle.groups,
        "data.shuffle.window": shuffle.window,
        "data.shuffle.images": shuffle.images,
        "data.shuffle.separation": [part.order.separation for part in parts],
        "data.shuffle.flip": shuffle.flip,
        "data.reports": reading is not None,
    }
    return Planned(stream, without_unsaid(identity))


def rendering(loading: Loading, device: torch.device) -> Loading:
    """The settings with `render: auto` decided by the device that trains."""
    if loading.render != "auto":
        return loading
    return replace(loading, render="device" if device.type == "cuda" else "cpu")


def say_unlabelled(manifest: Manifest, scored: str, *, named: str | None) -> None:
    """Warn that a fit has no probes; raise ValueError for a set that has no reports either.

    named: the set as `data.evaluation.manifest` names it, where it does; only then it is refused.
    """
    splits = sorted({shard.split for shard in manifest.shards})
    told = "report" in manifest.fields and scored in splits
    if named is not None and not told:
        raise ValueError(
            f"data.evaluation.manifest {named} needs labels and the splits train and {scored}, "
            f"or reports in {scored}; it has {list(manifest.labels)}, {list(manifest.fields)}, "
            f"{splits}"
        )
    but = ", but for retrieval where the objective reads reports" if told else ""
    log.warning("no labelled train and val images in %s: no validation%s", manifest.root, but)


def plan_labelled(
    manifest: Manifest, scored: str, share: Share, *, evaluation: Evaluation, loading: Loading
) -> list[LabelledImages]:
    """The images that probes are fitted on, of the train split, and those of the scored split."""

    def images(split: str, most: int | None) -> LabelledImages:
        return LabelledImages(
            ShardSource(load_index(manifest, manifest.of_split(split))),
            manifest.labels,
            evaluation,
            rank=share.rank,
            ranks=share.ranks,
            most=most,
            threads=loading.threads,
        )

    return [images("train", evaluation.fit_images), images(scored, evaluation.score_images)]


def plan_studies(
    manifest: Manifest,
    scored: str,
    share: Share,
    *,
    views: int,
    evaluation: Evaluation,
    loading: Loading,
    reading: Reading,
) -> list[LabelledStudies]:
    """The studies of the scored split whose reports are read, with so many views; or none."""
    if evaluation.studies == 0 or "report" not in manifest.fields:
        return []
    studies = LabelledStudies(
        ShardSource(load_index(manifest, manifest.of_split(scored))),
        manifest.labels,
        evaluation,
        reading=reading,
        views=views,
        rank=share.rank,
        ranks=share.ranks,
        threads=loading.threads,
    )
    return [studies] if len(studies) else []
