"""What Lightning gets: the stream as a train loader, the labelled images as evaluation loaders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.identity import differences
from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.origin import origin
from lightning_rad.data.planning import (
    Share,
    plan_labelled,
    plan_stream,
    plan_studies,
    rendering,
    require_whole_studies,
    say_unlabelled,
)
from lightning_rad.data.settings import Evaluation, Loading, Normalise, Shuffle
from lightning_rad.data.stream import Positions, Stream
from lightning_rad.data.study_loader import LabelledStudies
from lightning_rad.data.train_loader import TrainLoader
from lightning_rad.data.units import Unit
from lightning_rad.data.unrendered import Unrendered
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.data.views.render_device import normalise
from lightning_rad.manifest import Manifest, load_manifest
from lightning_rad.modalities.reading import Reading
from lightning_rad.schema import LabelledBatch, StudyBatch, ViewBatch

log = logging.getLogger(__name__)


class RadiographData(LightningDataModule):
    """Radiographs from shards: an endless exact stream of views, and labelled images to probe on.

    The state in a checkpoint is the position of each set, counted in units that a training step
    has consumed, whatever was prefetched; it is the same on all ranks. It is kept here and not by
    the loader, because Lightning drops the state of loaders when `estimated_stepping_batches` is
    read in `configure_optimizers` (pytorch-lightning #20550).

    `gives`, `views`, `unit`, `images` and `global_batch` are open to an objective, which may refuse
    them before the first step.

    Args:
        manifest: Shard folder or manifest file to pretrain on (its train split); several with
            their weights, {path: weight}, mix them: a weight fixes the set's share of each batch.
        views: The views of a unit, one recipe each, all of one size.
        global_batch: Units of one batch over all ranks.
        unit: What is counted and drawn: image, study or patient. Each view shows one of its
            images; `shuffle.images` says whether they differ.
        normalise: Grey levels to numbers.
        shuffle: How units are ordered and which of its images each view shows.
        loading: How batches are made.
        evaluation: Which labelled images are evaluated, and how they are shown.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"views", "unit", "patient", "image", "report"})
    """Fields of ViewBatch that are filled in; `report` where the objective calls `read_reports`."""

    def __init__(
        self,
        manifest: str | dict[str, float],
        *,
        views: list[ViewRecipe],
        evaluation: Evaluation,
        global_batch: int = 256,
        unit: Unit = "image",
        normalise: Normalise = Normalise(),  # noqa: B008 - frozen
        shuffle: Shuffle = Shuffle(),  # noqa: B008 - frozen
        loading: Loading = Loading(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._weights = {manifest: 1.0} if isinstance(manifest, str) else dict(manifest)
        self.views = views
        self.global_batch, self.unit, self.images = global_batch, unit, shuffle.images
        self._normalise = normalise
        self._shuffle, self._loading, self._evaluation = shuffle, loading, evaluation
        sizes = sorted({view.size for view in views})
        if len(sizes) != 1:
            raise ValueError(f"data.views must all have one size, got {sizes}")
        self.labels: tuple[str, ...] = ()
        self.waited, self._fitting = 0.0, False
        self.force_resume = False
        self._stream: Stream | None = None
        self._reading: Reading | None = None
        self._labelled: list[LabelledImages] = []
        self._scored: tuple[Manifest, str] | None = None
        self._studies: list[LabelledStudies] = []
        self._identity: dict[str, Any] = {}
        self._positions: Positions = ()
        self._positions_before: Positions = ()

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None, "attached by the trainer before any hook"
        return self.trainer

    # --- what is read

    def setup(self, stage: str) -> None:
        """Open the manifests and plan this rank's share; called on every rank.

        Without reports: an objective that reads them says so in its own setup, which follows.
        """
        self._fitting = stage == "fit"
        self._reading, self._scored, self._studies = None, None, []
        if self._fitting:
            self._setup_stream()
        scored = "test" if stage == "test" else "val"
        manifest = load_manifest(self._evaluation.manifest or next(iter(self._weights)))
        splits = {shard.split for shard in manifest.shards}
        self.labels, self._labelled = manifest.labels, []
        if scored in splits:
            self._scored = manifest, scored
        if stage == "fit" and not (manifest.labels and {"train", scored} <= splits):
            say_unlabelled(manifest, scored, named=self._evaluation.manifest)
            return
        self._labelled = plan_labelled(
            manifest, scored, self._share, evaluation=self._evaluation, loading=self._loading
        )

    def read_reports(self, reading: Reading) -> None:
        """Give the reports with the images from now on; for an objective's `setup`.

        The stream is planned again, over the studies that have a report, and evaluation has a
        third loader, of StudyBatch, where the scored split has reports, labelled or not. Raises
        ValueError for sets without reports, units of several, and views mirrored one by one.
        """
        self._reading = reading
        if self._fitting:
            require_whole_studies(self._weights, self.views, self.unit)
            self._setup_stream()
        if self._scored is not None:
            self._studies = plan_studies(
                *self._scored,
                self._share,
                views=len(self.views),
                evaluation=self._evaluation,
                loading=self._loading,
                reading=reading,
            )

    def _setup_stream(self) -> None:
        planned = plan_stream(
            self._weights,
            self.views,
            self._share,
            unit=self.unit,
            global_batch=self.global_batch,
            shuffle=self._shuffle,
            loading=rendering(self._loading, self._trainer.strategy.root_device),
            reading=self._reading,
        )
        self._stream, self._identity = planned.stream, planned.identity
        self._positions = (0,) * len(self._stream.parts)

    @property
    def _share(self) -> Share:
        return Share(self._trainer.global_rank, self._trainer.world_size)

    # --- loaders

    def train_dataloader(self) -> TrainLoader:
        """The stream from the current position on; its length is floor(N / global batch)."""
        assert self._stream is not None
        return TrainLoader(self._stream, positions=lambda: self.positions, waited=self._count_wait)

    def _count_wait(self, seconds: float) -> None:
        self.waited += seconds

    def val_dataloader(self) -> list[LabelledImages | LabelledStudies | list[Any]]:
        """Labelled images to fit probes on and to score; then, where reports are read, studies.

        A fit without labelled images has no loader, or two that are empty before the studies.
        """
        unprobed: list[list[Any]] = [[], []] if self._studies and not self._labelled else []
        return [*unprobed, *self._labelled, *self._studies]

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> list[LabelledImages]:
        """The labelled images alone."""
        return self._labelled

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn what the threads made into what an objective or a probe takes, on the device."""
        if isinstance(batch, StreamBatch):
            self._positions_before, self._positions = self._positions, batch.after
            pixels = batch.pixels
            pixels = pixels.render() if isinstance(pixels, Unrendered) else pixels
            views = self._numbers(pixels)
            return ViewBatch(views, batch.unit, batch.patient, batch.image, batch.report)
        if isinstance(batch, LabelledBatch):
            batch.images = self._numbers(batch.images)
        if isinstance(batch, StudyBatch):
            batch.views.views = self._numbers(batch.views.views)
        return batch

    def _numbers(self, greys: Tensor) -> Tensor:
        numbers = normalise(greys, mean=self._normalise.mean, std=self._normalise.std)
        converted: Tensor = self._trainer.precision_plugin.convert_input(numbers)
        return converted

    # --- position

    @property
    def positions(self) -> Positions:
        """Units consumed by training steps so far, one count a set."""
        progress: Any = self._trainer.fit_loop.epoch_loop.batch_progress.current
        in_step = progress.ready > progress.processed
        return self._positions_before if in_step else self._positions

    def origin(
        self, positions: Positions, unit: Sequence[int], image: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Where this rank's rows of the batch at `positions` come from: see `origin.origin`."""
        assert self._stream is not None
        rows = origin(self._stream, positions, unit, image)
        return {"seed": self._shuffle.seed, "positions": list(positions), "rows": rows}

    def state_dict(self) -> dict[str, Any]:
        """The positions, and what they are positions in."""
        if self._stream is None:
            return {}
        return {"positions": list(self.positions), "identity": self._identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint's positions.

        Raises ValueError if it read other data; with `force_resume` that is a warning.
        """
        if self._stream is None or not state_dict:
            return
        for differs in differences(state_dict["identity"], self._identity):
            if not self.force_resume:
                raise ValueError(
                    f"cannot resume: {differs}; restore the setting, start another run from "
                    "its weights (--init_from), or give --force_resume true"
                )
            log.warning("--force_resume: %s; the order of units is another", differs)
        positions = tuple(state_dict["positions"])
        if len(positions) != len(self._positions):
            log.warning("--force_resume: another number of sets: each begins anew")
            return
        self._positions = positions
