"""What Lightning gets: the stream as a train loader, the labelled images as evaluation loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.evaluated import Evaluated
from lightning_rad.data.focus import count_focus, focus_counters
from lightning_rad.data.identity import resumed
from lightning_rad.data.kept import opened
from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.mixture import Weight
from lightning_rad.data.origin import origin
from lightning_rad.data.planning import open_sets, plan_stream, rendering
from lightning_rad.data.settings import Evaluation, Loading, Normalise, Shuffle
from lightning_rad.data.stream import Positions, Stream
from lightning_rad.data.study_loader import LabelledStudies
from lightning_rad.data.train_loader import TrainLoader
from lightning_rad.data.units import Unit
from lightning_rad.data.unrendered import Unrendered
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.data.views.render_device import normalise
from lightning_rad.manifest import Manifest
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.modalities.reading import Reading
from lightning_rad.schema import LabelledBatch, StudyBatch
from lightning_rad.storage.settings import Remote


class RadiographData(LightningDataModule):
    """Radiographs from shards: an endless exact stream of views, and labelled images to probe on.

    The state in a checkpoint is the position of each set, counted in units that a training step
    has consumed, whatever was prefetched; it is the same on all ranks. It is kept here and not by
    the loader, because Lightning drops the state of loaders when `estimated_stepping_batches` is
    read in `configure_optimizers` (pytorch-lightning #20550).

    `gives`, `views`, `unit`, `images` and `global_batch` are open to an objective, which may refuse
    them before the first step.

    Args:
        manifest: Shard folder, manifest file or URL to pretrain on (its train split); several as
            {path: weight} mix them: shares of a batch follow weights, or units with `size` for all.
        views: The views of a unit, one recipe each, all of one size.
        global_batch: Units of one batch over all ranks.
        unit: What is counted and drawn: image, study or patient. Each view shows one of its
            images; `shuffle.images` says whether they differ.
        normalise: Grey levels to numbers.
        shuffle: How units are ordered and which of its images each view shows.
        loading: How batches are made.
        remote: How sets named by URL are read.
        evaluation: Which labelled images are evaluated, and how they are shown.
    """

    gives: ClassVar[frozenset[str]] = frozenset(
        {"views", "unit", "patient", "image", "report", "findings", "gaze", "greys"}
    )
    """Fields of ViewBatch that are filled in; `report` where the objective calls `read_reports`,
    `findings` and `greys` with `read_findings`, `gaze` with `read_gaze`."""

    def __init__(
        self,
        manifest: str | dict[str, Weight],
        *,
        views: list[ViewRecipe],
        evaluation: Evaluation,
        global_batch: int = 256,
        unit: Unit = "image",
        normalise: Normalise = Normalise(),  # noqa: B008 - frozen
        shuffle: Shuffle = Shuffle(),  # noqa: B008 - frozen
        loading: Loading = Loading(),  # noqa: B008 - frozen
        remote: Remote = Remote(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._weights = {manifest: 1.0} if isinstance(manifest, str) else dict(manifest)
        self.views = views
        self.global_batch, self.unit, self.images = global_batch, unit, shuffle.images
        self._normalise, self._remote = normalise, remote
        self._shuffle, self._loading, self._evaluation = shuffle, loading, evaluation
        self._manifests: dict[str, Manifest] = {}
        sizes = sorted({view.size for view in views})
        if len(sizes) != 1:
            raise ValueError(f"data.views must all have one size, got {sizes}")
        self.labels: tuple[str, ...] = ()
        self.waited, self._fitting, self.force_resume = 0.0, False, False
        self._stream: Stream | None = None
        self._asked = Asked()
        self._evaluated: Evaluated | None = None
        self.focus = focus_counters()
        self._identity: dict[str, Any] = {}
        self._positions, self._positions_before = Positions(), Positions()

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None, "attached by the trainer before any hook"
        return self.trainer

    def setup(self, stage: str) -> None:
        """Open the manifests and plan this rank's share; called on every rank.

        Of pixels alone: an objective that reads more says so in its own setup, which follows.
        """
        self._fitting, self._evaluated = stage == "fit", None
        if self._fitting:
            self._manifests = open_sets(self._weights, self._remote, self._share, self._shuffle)
        self._ask(Asked())
        self._evaluated = Evaluated(
            stage,
            next(iter(self._weights)),
            self._share,
            views=len(self.views),
            settings=self._evaluation,
            loading=self._loading,
            remote=self._remote,
        )
        self.labels = self._evaluated.labels

    def read_reports(self, reading: Reading) -> None:
        """Give the reports with the images from now on; for an objective's `setup`.

        The stream is planned again, over the studies that have a report, and evaluation has a
        third loader, of StudyBatch, where the scored split has reports, labelled or not. Raises
        ValueError for sets without reports, units of several, and views mirrored one by one.
        """
        self._ask(replace(self._asked, reports=reading))

    def read_findings(self, reading: FindingReading) -> None:
        """Give findings, and the views' greys, from now on; for an objective's `setup`.

        The order of units stays. In training the labels and boxes of some patients are hidden,
        where the reading asks for it. Raises ValueError where a finding is no label of a set.
        """
        self._ask(replace(self._asked, findings=reading))

    def read_gaze(self, reading: GazeReading) -> None:
        """Give gaze from now on; for an objective's `setup`.

        The stream is planned again, over the studies with gaze, unless every image may have a
        predicted map. Raises ValueError for a set without what is read.
        """
        self._ask(replace(self._asked, gaze=reading))

    def _ask(self, asked: Asked) -> None:
        self._asked = asked
        if self._fitting:
            asked.require(self._manifests, self.views, self.unit)
            planned = plan_stream(
                self._manifests,
                self._weights,
                self.views,
                self._share,
                unit=self.unit,
                global_batch=self.global_batch,
                shuffle=self._shuffle,
                loading=rendering(self._loading, self._trainer.strategy.root_device),
                asked=asked,
            )
            self._stream, self._identity = planned.stream, planned.identity
            self._positions = (0,) * len(self._stream.parts)
        if self._evaluated is not None:
            self._evaluated.read(asked)

    @property
    def _share(self) -> Share:
        return Share(self._trainer.global_rank, self._trainer.world_size)

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
        return [] if self._evaluated is None else self._evaluated.loaders()

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> list[LabelledImages]:
        """The labelled images alone."""
        return [] if self._evaluated is None else self._evaluated.labelled

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn what the threads made into what an objective or a probe takes, on the device."""
        if isinstance(batch, StreamBatch):
            self._positions_before, self._positions = self._positions, batch.after
            pixels = batch.pixels.render() if isinstance(batch.pixels, Unrendered) else batch.pixels
            if batch.focus is not None:
                count_focus(self.focus, batch.focus, self.views)
            return batch.shown(self._numbers(pixels), greys=pixels)
        if isinstance(batch, LabelledBatch):
            batch.images = self._numbers(batch.images)
            batch.findings, batch.gaze = opened(batch.findings), opened(batch.gaze)
        if isinstance(batch, StudyBatch):
            batch.views.views = self._numbers(batch.views.views)
        return batch

    @property
    def numbers(self) -> tuple[float, float]:
        """Mean and std by which greys become numbers: (grey / 255 - mean) / std."""
        return self._normalise.mean, self._normalise.std

    def _numbers(self, greys: Tensor) -> Tensor:
        mean, std = self.numbers
        views = normalise(greys, mean=mean, std=std)
        converted: Tensor = self._trainer.precision_plugin.convert_input(views)
        return converted

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
        if self._stream is not None and state_dict:
            mine, force = self._identity, self.force_resume
            self._positions = resumed(state_dict, mine, self._positions, force=force)
