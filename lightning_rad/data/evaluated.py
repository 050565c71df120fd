"""The set that is evaluated: its labelled images, and its studies where reports are read."""

from __future__ import annotations

import logging
from typing import Any

from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.settings import Evaluation, Loading
from lightning_rad.data.source import ShardSource
from lightning_rad.data.study_loader import LabelledStudies
from lightning_rad.manifest import Manifest, load_index, load_manifest
from lightning_rad.modalities.reading import Reading
from lightning_rad.storage.settings import Remote

log = logging.getLogger(__name__)


class Evaluated:
    """What is evaluated in one stage, of one rank's share.

    first: the set trained on, evaluated where the settings name no other. views: of each study.
    Raises ValueError where a set is named that has neither labels nor reports to evaluate on.
    """

    def __init__(
        self,
        stage: str,
        first: str,
        share: Share,
        *,
        views: int,
        settings: Evaluation,
        loading: Loading,
        remote: Remote = Remote(),  # noqa: B008 - frozen
    ) -> None:
        self._scored = "test" if stage == "test" else "val"
        self._manifest = load_manifest(settings.manifest or first, remote)
        self._share, self._views = share, views
        self._settings, self._loading = settings, loading
        self._splits = {shard.split for shard in self._manifest.shards}
        self.labels = self._manifest.labels
        self.labelled: list[LabelledImages] = []
        self.studies: list[LabelledStudies] = []
        if stage == "fit" and not (self.labels and {"train", self._scored} <= self._splits):
            say_unlabelled(self._manifest, self._scored, named=settings.manifest)
            return
        self.labelled = self._both()

    def read(self, asked: Asked) -> None:
        """Give from now on what is asked for beside pixels; nothing of it is hidden.

        Studies where the scored split has reports, and images where there is gaze, labelled or not.
        """
        if asked.findings is not None:
            say_unknown(self._manifest, asked.findings.names)
        if asked.gaze is not None and self._looked_at and not self.labelled:
            self.labelled = self._both()
        for images in self.labelled:
            images.evidence = asked.evidence(images.reader, hides=False)
        if asked.reports is not None and self._scored in self._splits:
            self.studies = self._told(asked.reports)

    def loaders(self) -> list[LabelledImages | LabelledStudies | list[Any]]:
        """Two of labelled images, or none; with studies two that are empty instead of none."""
        unprobed: list[list[Any]] = [[], []] if self.studies and not self.labelled else []
        return [*unprobed, *self.labelled, *self.studies]

    @property
    def _looked_at(self) -> bool:
        return "gaze" in self._manifest.fields and {"train", self._scored} <= self._splits

    def _both(self) -> list[LabelledImages]:
        fit, score = self._settings.fit_images, self._settings.score_images
        return [self._images("train", fit), self._images(self._scored, score)]

    def _images(self, split: str, most: int | None) -> LabelledImages:
        return LabelledImages(
            ShardSource(load_index(self._manifest, self._manifest.of_split(split))),
            self.labels,
            self._settings,
            rank=self._share.rank,
            ranks=self._share.ranks,
            most=most,
            threads=self._loading.threads,
        )

    def _told(self, reading: Reading) -> list[LabelledStudies]:
        if self._settings.studies == 0 or "report" not in self._manifest.fields:
            return []
        studies = LabelledStudies(
            ShardSource(load_index(self._manifest, self._manifest.of_split(self._scored))),
            self.labels,
            self._settings,
            reading=reading,
            views=self._views,
            rank=self._share.rank,
            ranks=self._share.ranks,
            threads=self._loading.threads,
        )
        return [studies] if len(studies) else []


def say_unlabelled(manifest: Manifest, scored: str, *, named: str | None) -> None:
    """Warn that a fit has no probes; raise ValueError for a set that has no reports either.

    named: the set as `data.evaluation.manifest` names it, where it does; only then it is refused.
    """
    splits = sorted({shard.split for shard in manifest.shards})
    needs = {"report": {scored}, "gaze": {"train", scored}}
    called = {"report": "what reads reports", "gaze": "what reads gaze"}
    measured = [
        called[field] for field in needs if field in manifest.fields and needs[field] <= {*splits}
    ]
    if named is not None and not measured:
        raise ValueError(
            f"data.evaluation.manifest {named} needs labels and the splits train and {scored}, "
            f"or reports in {scored}, or gaze in train and {scored}; it has "
            f"{list(manifest.labels)}, {list(manifest.fields)}, {splits}"
        )
    but = f", but for {' and '.join(measured)}" if measured else ""
    log.warning("no labelled train and val images in %s: no validation%s", manifest.folder, but)


def say_unknown(manifest: Manifest, findings: tuple[str, ...]) -> None:
    """Warn that findings are no labels of the set: in evaluation they are unknown."""
    if missing := [name for name in findings if name not in manifest.labels]:
        log.warning("%s has no labels %s: they are unknown there", manifest.folder, missing)
