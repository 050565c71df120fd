"""What is asked of the data beside pixels, and what sets of shards must have for it.

Each refusal names set and setting. Manifests are by their paths as configured.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from lightning_rad.data.evidence import Evidence
from lightning_rad.data.mixture import Member
from lightning_rad.data.reader import Reader
from lightning_rad.data.units import Unit
from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.manifest import Manifest
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.modalities.reading import Reading

log = logging.getLogger(__name__)

_NAMES: Final = "model.init_args.findings.reading.names"


class Share(NamedTuple):
    """Which of how many ranks is planned for."""

    rank: int
    ranks: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What an objective asked the data to read beside pixels; None where it did not.

    strange: words on boxes that the log has named already, in training or in evaluation.
    """

    reports: Reading | None = None
    findings: FindingReading | None = None
    gaze: GazeReading | None = None
    strange: set[str] = field(default_factory=set, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.reports is not None and self.gaze is not None:
            raise ValueError(
                "reports and gaze cannot be read in one run: each leaves out studies of its own"
            )

    def evidence(self, reader: Reader, *, hides: bool) -> Evidence:
        """How findings and gaze of a reader's images are read; hides: see `FindingReader`."""
        return Evidence.of(reader, self.findings, self.gaze, hides=hides, strange=self.strange)

    def member(self, manifest: Manifest) -> Member | None:
        """What studies of a set must have to take part."""
        if self.reports is not None:
            return "report"
        if self.gaze is None or "saliency" in _sources(manifest, self.gaze.saliency):
            return None
        return "gaze"

    def require(
        self, manifests: Mapping[str, Manifest], views: Sequence[ViewRecipe], unit: Unit
    ) -> None:
        """Raise ValueError where sets, views or units do not go with it."""
        require_gaze_of_views(manifests, views)
        if self.reports is not None:
            require_whole_studies(manifests, views, unit)
        if self.findings is not None:
            require_findings(manifests, self.findings)
        if self.gaze is not None:
            require_gaze(manifests, self.gaze.saliency)


def require_whole_studies(
    manifests: Mapping[str, Manifest], views: Sequence[ViewRecipe], unit: Unit
) -> None:
    """Raise ValueError where a batch could hold images beside a report that is not theirs.

    That is a set without reports, units of several reports, and views that are mirrored one by one.
    """
    for path, manifest in manifests.items():
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


def require_findings(manifests: Mapping[str, Manifest], reading: FindingReading) -> None:
    """Raise ValueError where a finding is a label of no set; where only some have it, say so.

    In the others it is unknown, as every finding is in a set without any labels.
    """
    known = {name for manifest in manifests.values() for name in manifest.labels}
    for path, manifest in manifests.items():
        missing = [name for name in reading.names if name not in manifest.labels]
        if strange := [name for name in missing if name not in known]:
            raise ValueError(
                f"data.manifest {path} has no label '{strange[0]}', which {_NAMES} asks for; it "
                f"has {list(manifest.labels)}"
            )
        if missing and manifest.labels:
            log.warning("data.manifest %s has no labels %s: they are unknown there", path, missing)


def require_gaze(manifests: Mapping[str, Manifest], saliency: Saliency) -> None:
    """Raise ValueError where a set has none of the maps that are learned from."""
    for path, manifest in manifests.items():
        if not _sources(manifest, saliency):
            raise ValueError(_refused(path, manifest, saliency, "the objective"))


def require_gaze_of_views(manifests: Mapping[str, Manifest], views: Sequence[ViewRecipe]) -> None:
    """Raise ValueError where no set has any of the maps that a focus view asks for."""
    for number, view in enumerate(views):
        if not isinstance(view, FocusRecipe):
            continue
        if not any(_sources(manifest, view.saliency) for manifest in manifests.values()):
            path, manifest = next(iter(manifests.items()))
            raise ValueError(_refused(path, manifest, view.saliency, f"data.views[{number}]"))


def _sources(manifest: Manifest, saliency: Saliency) -> list[str]:
    """The fields of a set from which maps can be made."""
    of = {"recorded": ("gaze",), "predicted": ("saliency",)}
    return [
        name for name in of.get(saliency.source, ("gaze", "saliency")) if name in manifest.fields
    ]


def _refused(path: str, manifest: Manifest, saliency: Saliency, reader: str) -> str:
    lacks = "predicted saliency" if saliency.source == "predicted" else "gaze"
    return (
        f"data.manifest {path} has no {lacks}, which {reader} reads: its fields are "
        f"{list(manifest.fields)}"
    )
