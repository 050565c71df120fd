"""The gaze probe through the real Trainer: its numbers, its baseline, its silence, ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from lightning_rad.collectives import rank, world_size
from lightning_rad.evaluation import saliency
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.gaze import GazeProbe
from lightning_rad.evaluation.gaze_rows import GazeCollector
from lightning_rad.evaluation.gaze_scores import GazeScore, score
from lightning_rad.schema import Gaze, LabelledBatch
from tests.evaluation.tiny import (
    Data,
    Objective,
    StopAt,
    labelled,
    measured,
    of_one_patient,
    probing,
)
from tests.gloo import run_on_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*' does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:Total length of .* across ranks is zero",
    "ignore:.*LeafSpec:FutureWarning",  # pytorch_lightning 2.6.6 on torch 2.14
)
SIDE = 4
NAMES = ("cc", "sim", "kld", "nss", "auc")


def gaze_of(image: Tensor) -> Gaze:
    """Of each image, from its number alone; every fifth has none, the others 1 to 5 points."""
    maps, points = [], []
    most = int((image % 5).max())
    for number in image.tolist():
        generator = torch.Generator().manual_seed(number)
        map_ = torch.rand(SIDE, SIDE, generator=generator) ** 3
        own = torch.rand(5, 2, generator=generator)[:most]
        looks = number % 5
        own[looks:] = math.nan
        maps.append(map_ / map_.sum() if looks else torch.zeros(SIDE, SIDE))
        points.append(own)
    return Gaze(torch.stack(maps), torch.stack(points))


class Loader:
    def __init__(self, table: LabelledBatch, rows: Tensor, size: int = 16) -> None:
        self.table, self.rows, self.size = table, rows, size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __iter__(self) -> Any:
        t = self.table
        for r in self.rows.split(self.size):
            yield LabelledBatch(
                t.images[r], t.labels[r], t.patient[r], t.image[r], gaze=gaze_of(t.image[r])
            )


class GazeData(Data):
    def val_dataloader(self) -> Any:
        return [Loader(t, self.order(torch.arange(len(t.image)))) for t in self.tables]

    test_dataloader = val_dataloader


class Foretells(Objective):
    """Half of the truth, half of something else."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        found = super().validation_step(batch, batch_idx, dataloader_idx)
        truth = gaze_of(batch.image).map
        return found | {"map": truth + 0.5 * truth.flip(1) + 1e-3}

    test_step = validation_step


def trainer(folder: Path, *before: Callback, **how: Any) -> Trainer:
    return probing(folder, *before, GazeProbe(bootstrap=PatientBootstrap(40)), **how)


def validate(folder: Path, objective: Any, data: Any, stage: str = "validate") -> Any:
    return measured(trainer(folder), objective, data, "gaze", stage)


def expected() -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """By hand: the objective's numbers, those of the mean map, and the images they are over."""
    fit, rows = labelled(1), labelled(2)
    first, second = gaze_of(fit.image).map.double(), gaze_of(rows.image)
    mean = first[first.sum((1, 2)) > 0].mean(0)
    truth = second.map.double()
    predicted = truth + 0.5 * truth.flip(1) + 1e-3
    found: list[dict[str, float]] = []
    counts: dict[str, int] = {}
    for map_ in (predicted, mean.expand_as(truth)):
        values = {}
        for name in NAMES:
            measure = getattr(saliency, "auc_judd" if name == "auc" else name)
            other = second.points if name in ("nss", "auc") else truth
            each = measure(map_.numpy(), other.numpy())
            values[name] = float(np.nanmean(each))
            counts[name] = int((~np.isnan(each)).sum())
        found.append(values)
    return found[0], found[1], counts


def test_validate_prints_a_table_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged, body = validate(tmp_path, Foretells(), GazeData())
    own, mean, counts = expected()
    for name in NAMES:
        assert logged[f"val/gaze_{name}"] == pytest.approx(own[name], rel=1e-5)
        assert logged[f"val/gaze_{name}_mean_map"] == pytest.approx(mean[name], rel=1e-5)
        line = body["measures"][name]
        assert line["predicted"]["value"] == pytest.approx(own[name], rel=1e-5)
        assert line["gain"]["value"] == pytest.approx(own[name] - mean[name], rel=1e-4)
        assert line["predicted"]["low"] < own[name] < line["predicted"]["high"]
        assert line["n"] == counts[name]
    assert set(logged) == {f"val/gaze_{n}{e}" for n in NAMES for e in ("", "_mean_map")}
    assert body["with_gaze"] < body["images"] == len(labelled(2).image)
    printed = capsys.readouterr().out
    for word in ("AUC-Judd", "predicted - mean map", f"{own['cc']:.3f} ("):
        assert word in printed


def test_repeats_and_the_order_of_rows_change_nothing(tmp_path: Path) -> None:
    logged, body = validate(tmp_path / "a", Foretells(), GazeData())
    padded = GazeData(order=lambda rows: torch.cat([rows.flip(0), rows[:5]]))
    other, again = validate(tmp_path / "b", Foretells(), padded)
    assert other == logged
    assert again == body


@pytest.mark.parametrize("objective", [Objective, Foretells])
def test_it_is_silent_where_nothing_is_foretold_or_nothing_recorded(
    tmp_path: Path, objective: Any
) -> None:
    data = GazeData() if objective is Objective else Data()
    logged, body = validate(tmp_path, objective(), data)
    assert not [name for name in logged if "gaze" in name]
    assert body is None


def test_it_is_silent_where_nobody_looked_at_any_image(tmp_path: Path) -> None:
    class Unseen(GazeData):
        def val_dataloader(self) -> Any:
            tables = self.tables
            return [Loader(t, torch.arange(len(t.image))[t.image % 5 == 0]) for t in tables]

    logged, body = validate(tmp_path, Foretells(), Unseen())
    assert logged == {}
    assert body is None


def test_the_test_split_has_a_file_of_its_own(tmp_path: Path) -> None:
    logged, body = validate(tmp_path, Foretells(), GazeData(), "test")
    assert "test/gaze_cc" in logged
    assert body["stage"] == "test"


def test_a_fit_logs_and_prints_one_line_without_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=-1)  # which is no score
    runs.fit(Foretells(), datamodule=GazeData())
    own, mean, _ = expected()
    assert float(runs.callback_metrics["val/gaze_nss"]) == pytest.approx(own["nss"], rel=1e-5)
    printed = capsys.readouterr().out
    assert f"epoch 0: gaze CC {own['cc']:.3f} (mean map {mean['cc']:.3f})" in printed
    assert printed.count("gaze CC") == 1
    assert not (tmp_path / "gaze_val.json").exists()


@pytest.mark.parametrize("loader", [0, 1])
def test_a_validation_that_was_cut_short_is_no_score(tmp_path: Path, loader: int) -> None:
    runs = trainer(tmp_path, StopAt(loader, 1), max_epochs=1, num_sanity_val_steps=0)
    runs.fit(Foretells(), datamodule=GazeData())
    assert not [name for name in runs.callback_metrics if "gaze" in name]


def test_intervals_are_of_patients(tmp_path: Path) -> None:
    """Of one patient there is but one resample: no interval has a width."""
    one = GazeData(tables=(labelled(1), of_one_patient(labelled(2))))
    _, body = validate(tmp_path, Foretells(), one)
    for measure in body["measures"].values():
        for each in (measure["predicted"], measure["mean_map"], measure["gain"]):
            assert each["low"] == pytest.approx(each["value"], rel=1e-12)
            assert each["high"] == pytest.approx(each["value"], rel=1e-12)


def test_maps_that_are_not_finite_are_told_and_left_out(tmp_path: Path) -> None:
    class Broken(Foretells):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            found = super().validation_step(batch, batch_idx, dataloader_idx)
            found["map"][batch.image % 16 == 3] = math.nan
            return found

    with pytest.warns(UserWarning, match="predicted maps are not finite"):
        logged, body = validate(tmp_path, Broken(), GazeData())
    assert 0 < logged["val/gaze_cc"] < 1
    assert body["measures"]["cc"]["n"] < expected()[2]["cc"]


def on_rank() -> dict[str, GazeScore]:
    found = []
    for table in (labelled(1), labelled(2)):
        rows = torch.arange(len(table.image))[rank() :: world_size()]
        collector = GazeCollector()
        for batch in Loader(table, rows):
            collector.add(Foretells().eval().validation_step(batch, 0), batch)
        found.append(collector.gather(torch.device("cpu")))
    assert found[1] is not None
    return score(found[0], found[1], PatientBootstrap(20), seed=0)


def test_two_ranks_find_the_numbers_of_one() -> None:
    assert run_on_ranks(on_rank, 2) == [on_rank()] * 2


def test_a_seed_below_0_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"gaze_probe\.seed must be 0 or more"):
        GazeProbe(seed=-1)
