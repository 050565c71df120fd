"""Given batches through the real Trainer, and what the objective is after each step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from lightning_rad.objectives.base import Objective
from lightning_rad.schema import Gaze, LabelledBatch, Reports, StudyBatch, ViewBatch


class FixedBatches(LightningDataModule):
    """Hands out given global batches, of which each rank gets its contiguous share of the rows."""

    gives: ClassVar[frozenset[str]] = frozenset(
        {"views", "unit", "patient", "image", "report", "findings", "gaze", "greys"}
    )

    def __init__(
        self,
        batches: list[ViewBatch],
        *,
        unit: str = "image",
        studies: Sequence[StudyBatch] = (),
    ) -> None:
        super().__init__()
        self.reading: Any = None
        self._studies = studies
        self.batches, self.unit, self.images = batches, unit, "distinct"
        self.views: list[Any] = ["fixed"] * len(batches[0].views)
        self.global_batch = len(batches[0].unit)

    def train_dataloader(self) -> _Loader:
        assert self.trainer is not None
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return _Loader([share(batch, rank, ranks) for batch in self.batches])

    def val_dataloader(self) -> _Loader | list[_Loader]:
        """View 0 of the first batch, whole on every rank; `limit_val_batches` lets a fit see it.

        With studies twice that, and the studies as the third loader.
        """
        first = self.batches[0]
        labels = torch.zeros(len(first.unit), 1)
        images = _Loader([LabelledBatch(first.views[0], labels, first.patient, first.image[0])])
        return [images, images, _Loader(self._studies)] if self._studies else images

    def read_reports(self, reading: Any) -> None:
        """Keep how reports would be read; the batches come with theirs."""
        self.reading = reading

    def read_findings(self, reading: Any) -> None:
        """Keep how findings would be read; the batches come with theirs."""
        self.reading = reading

    def read_gaze(self, reading: Any) -> None:
        """Keep how gaze would be read; the batches come with theirs."""
        self.reading = reading


class _Loader:
    """A list that is no list to Lightning, which would take one for several loaders."""

    def __init__(self, batches: Sequence[ViewBatch | LabelledBatch | StudyBatch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ViewBatch | LabelledBatch | StudyBatch]:
        return iter(self._batches)


def share(batch: ViewBatch, rank: int, ranks: int) -> ViewBatch:
    """The rows of one rank."""
    rows = len(batch.unit)
    assert rows % ranks == 0, f"{rows} rows on {ranks} ranks"
    mine = slice(rank * rows // ranks, (rank + 1) * rows // ranks)
    return batch.rows(mine)


def random_batches(
    count: int, *, rows: int = 8, views: int = 2, size: int = 16, seed: int = 1
) -> list[ViewBatch]:
    """Batches of float64 noise; units and images are all distinct, patients unknown."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for start in range(0, count * rows, rows):
        pixels = torch.randn(views, rows, 1, size, size, generator=generator, dtype=torch.float64)
        unit = torch.arange(start, start + rows)
        made.append(ViewBatch(pixels, unit, torch.zeros_like(unit), unit.expand(views, rows)))
    return made


def with_reports(
    batches: list[ViewBatch],
    *,
    vocabulary: int = 20,
    limit: int = 12,
    same: Sequence[Sequence[int]] = (),
    seed: int = 2,
) -> list[ViewBatch]:
    """The batches with random reports of 3 to `limit` tokens, alike for both tokenisers.

    Texts begin with id 1, end with id 2 and hold others from 3 on; the longest row of a batch
    decides its width. same: rows, of each batch, that have one and the same report.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for batch in batches:
        rows = len(batch.unit)
        lengths = torch.randint(3, limit + 1, (rows,), generator=generator)
        tokens = torch.randint(3, vocabulary, (rows, int(lengths.max())), generator=generator)
        hashes = torch.randint(1, 2**62, (rows,), generator=generator)
        place = torch.arange(tokens.shape[1])
        tokens[:, 0] = 1
        tokens[torch.arange(rows), lengths - 1] = 2
        tokens[place >= lengths[:, None]] = -1
        for alike in same:
            hashes[list(alike)] = int(hashes[alike[0]])
            tokens[list(alike)] = tokens[alike[0]].clone()
        flipped = torch.zeros(rows, dtype=torch.bool)
        report = Reports(hashes, flipped, {"caption": tokens, "text": tokens.clone()})
        made.append(replace(batch, report=report))
    return made


def with_gaze(
    batches: list[ViewBatch],
    *,
    side: int = 8,
    points: int = 5,
    without: Sequence[int] = (),
    seed: int = 3,
) -> list[ViewBatch]:
    """The batches with random maps and fixations of each view, 1 to `points` of them.

    without: rows of each batch at which nobody looked.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for batch in batches:
        shape = batch.views.shape[:2]
        maps = torch.rand(*shape, side, side, generator=generator, dtype=batch.views.dtype) ** 4
        maps = maps / maps.sum((-2, -1), keepdim=True)
        places = torch.rand(*shape, points, 2, generator=generator)
        many = torch.randint(1, points + 1, shape, generator=generator)
        places[torch.arange(points) >= many[..., None]] = torch.nan
        maps[:, list(without)], places[:, list(without)] = 0, torch.nan
        made.append(replace(batch, gaze=Gaze(maps, places)))
    return made


@dataclass(frozen=True)
class Snapshot:
    """The objective after an optimiser step: all of its state, and the terms it logged."""

    state: dict[str, Tensor]
    terms: dict[str, float]

    def under(self, name: str) -> dict[str, Tensor]:
        """The state of a submodule, named as in its own state dict."""
        start = f"{name}."
        return {k.removeprefix(start): v for k, v in self.state.items() if k.startswith(start)}

    def chain(self, *names: str) -> dict[str, Tensor]:
        """The state of several submodules, named as in an nn.Sequential of them."""
        parts = [self.under(name) for name in names]
        return {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.items()}


def fit_steps(
    objective: Objective,
    batches: list[ViewBatch],
    *,
    unit: str = "image",
    studies: Sequence[StudyBatch] = (),
    **trainer_changes: Any,
) -> list[Snapshot]:
    """One epoch over the batches in float64; a snapshot of every optimiser step, in order.

    studies: for validation, which `limit_val_batches` lets a fit see.
    """
    watcher = _Watcher()
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "precision": "64-true",
        "max_steps": len(batches),
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "callbacks": [watcher],
    }
    Trainer(**(settings | trainer_changes)).fit(
        objective, datamodule=FixedBatches(batches, unit=unit, studies=studies)
    )
    return watcher.snapshots


def fit_on_this_rank(
    make: Callable[[], Objective],
    batches: list[ViewBatch],
    unit: str = "image",
    **trainer_changes: Any,
) -> list[Snapshot]:
    """`fit_steps` under DDP, inside the process group that `run_on_ranks` made."""
    rank, ranks = str(dist.get_rank()), str(dist.get_world_size())
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "tests"}
    with patch.dict(os.environ, launched), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spread = {"strategy": "ddp", "devices": int(ranks), "use_distributed_sampler": False}
        return fit_steps(make(), batches, unit=unit, **(spread | trainer_changes))


def whole(value: Tensor) -> Tensor:
    """A copy of a tensor, put together from its shards if it is sharded."""
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()


class _Watcher(Callback):
    """Looks where the next step begins, when every hook of the last one has run."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._terms: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self._look(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        metrics = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        assert all(value.dtype == torch.float64 for value in metrics.values())
        self._terms = {
            name.removeprefix("train/"): float(value)
            for name, value in metrics.items()
            if not name.endswith(("_step", "_epoch"))
        }

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._look(trainer, module)

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step == len(self.snapshots):
            return
        state = {name: whole(value) for name, value in module.state_dict().items()}
        self.snapshots.append(Snapshot(state, self._terms))
