"""The probe of findings through the real Trainer: its numbers, the fixed box, silence, ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lightning_rad.collectives import rank, world_size
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.finding_rows import FindingCollector
from lightning_rad.evaluation.findings import FindingProbe
from lightning_rad.modalities.boxes import iou
from lightning_rad.schema import Findings, LabelledBatch
from tests.evaluation.tiny import (
    FINDINGS,
    SIDE,
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
NAMES = FINDINGS[::-1]
"""What the objective tells, in another order than the columns of the manifest's labels."""

FIXED = [SIDE * share / 224 for share in (24, 24, 200, 200)]


def known(table: LabelledBatch, rows: Tensor) -> Findings:
    """Of each image, from its number alone: 0 to 2 boxes, as wide as the batch's own most."""
    numbers = table.image[rows].tolist()
    most = max(number % 3 for number in numbers)
    boxes = torch.full((len(rows), most, 4), math.nan)
    finding = torch.full((len(rows), most), -1)
    for row, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(number)
        corner = 2 * torch.rand(2, 2, generator=generator)
        given = torch.cat([corner, corner + 0.5 + 1.5 * torch.rand(2, 2, generator=generator)], 1)
        boxes[row, : number % 3] = given[: number % 3]
        finding[row, : number % 3] = torch.tensor([1, 2])[: number % 3]
    return Findings(table.labels[rows].flip(1), boxes, finding)


def nothing(table: LabelledBatch, rows: Tensor) -> Findings:
    """Of no image anything."""
    found = known(table, rows)
    unknown = torch.full_like(found.labels, math.nan), torch.full_like(found.boxes, math.nan)
    return Findings(*unknown, torch.full_like(found.finding, -1))


class Loader:
    def __init__(self, table: LabelledBatch, rows: Tensor, size: int = 16) -> None:
        self.table, self.rows, self.size = table, rows, size
        self.find = known

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __iter__(self) -> Any:
        t = self.table
        for r in self.rows.split(self.size):
            found = self.find(t, r)
            yield LabelledBatch(t.images[r], t.labels[r], t.patient[r], t.image[r], found)


class FindingData(Data):
    def val_dataloader(self) -> Any:
        return [Loader(t, self.order(torch.arange(len(t.image)))) for t in self.tables]

    test_dataloader = val_dataloader


def told(images: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Logits from the pixels that findings lie in; boxes of every image's own first number."""
    pixels = images.flatten(1)
    logits = torch.stack([-pixels[:, 5], pixels[:, 1], pixels[:, 0]], 1)
    shift = (number % 7).float()[:, None, None] / 7
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.5, 0.5, 3.0, 2.5], [1.0, 1.0, 3.0, 3.0]])
    return logits, box + shift


class Tells(Objective):
    finding_names = NAMES

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        logits, boxes = told(batch.images, batch.image)
        found = super().validation_step(batch, batch_idx, dataloader_idx)
        return found | {"logits": logits, "boxes": boxes}

    test_step = validation_step


def trainer(folder: Path, *before: Callback, **how: Any) -> Trainer:
    return probing(folder, *before, FindingProbe(bootstrap=PatientBootstrap(40)), **how)


def validate(folder: Path, objective: Any, data: Any, stage: str = "validate") -> Any:
    return measured(trainer(folder), objective, data, "findings", stage)


def found_by_hand(least: float, *, fixed: bool = False) -> dict[int, list[bool]]:
    """By the column of the finding: whether each annotated box is met, in plain loops."""
    table, hits = labelled(2), {1: list[bool](), 2: list[bool]()}
    given = known(table, torch.arange(len(table.image)))
    _, boxes = told(table.images, table.image)
    for row in range(len(table.image)):
        for box, column in zip(given.boxes[row], given.finding[row].tolist(), strict=True):
            if column < 0:
                continue
            mine = torch.tensor(FIXED) if fixed else boxes[row, column]
            hits[column].append(float(iou(box[None], mine[None])) >= least)
    return hits


def auroc_by_hand() -> dict[str, float]:
    table = labelled(2)
    logits, _ = told(table.images, table.image)
    found = {}
    for column, name in enumerate(NAMES):
        label = table.labels.flip(1)[:, column]
        there = ~label.isnan()
        if len(label[there].unique()) == 2:
            found[name] = roc_auc_score(label[there], logits[there, column])
    return found


def test_validate_prints_a_table_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged, body = validate(tmp_path, Tells(), FindingData())
    auroc = auroc_by_hand()
    assert auroc.keys() == {"nodule", "effusion"}
    for name, value in auroc.items():
        assert logged[f"val/finding_auroc/{name}"] == pytest.approx(value)
        line = body["findings"][NAMES.index(name)]
        assert (line["finding"], line["auroc"]["value"]) == (name, pytest.approx(value))
        assert line["auroc"]["low"] < value < line["auroc"]["high"]
    assert logged["val/finding_auroc"] == pytest.approx(np.mean(list(auroc.values())))
    assert body["findings"][0]["auroc"]["value"] is None  # `never` has one class
    for least in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        for name, fixed in (("localised", False), ("localised_fixed", True)):
            hits = found_by_hand(least, fixed=fixed)
            share = {column: np.mean(one) for column, one in hits.items()}
            assert logged[f"val/{name}@{least}"] == pytest.approx(np.mean(list(share.values())))
            for column, value in share.items():
                line = body["findings"][column]
                assert line["boxes"] == len(hits[column])
                assert line[name][str(least)]["value"] == pytest.approx(value)
    assert logged["val/localised@0.3"] != logged["val/localised_fixed@0.3"]
    assert 0 < logged["val/localised@0.3"] < 1
    assert body["findings"][0]["boxes"] == 0
    assert body["macro"]["boxes"] == sum(len(one) for one in found_by_hand(0.1).values())
    assert body["macro"]["boxed_findings"] == 2
    assert body["images"] == len(labelled(2).image)
    printed = capsys.readouterr().out
    for word in ("found@0.3", "fixed@0.3", f"{auroc['nodule']:.3f} ("):
        assert word in printed


def test_intervals_are_of_patients(tmp_path: Path) -> None:
    """Of one patient there is but one resample: no interval has a width, of AUROC or of boxes."""
    one = FindingData(tables=(labelled(1), of_one_patient(labelled(2))))
    _, body = validate(tmp_path, Tells(), one)
    found = [body["macro"]["auroc"], *body["macro"]["localised"].values()]
    found += body["macro"]["localised_fixed"].values()
    assert len(found) == 15
    for each in found:
        assert each["low"] == each["value"] == each["high"]


def test_repeats_and_the_order_of_rows_change_nothing(tmp_path: Path) -> None:
    logged, body = validate(tmp_path / "a", Tells(), FindingData())
    padded = FindingData(order=lambda rows: torch.cat([rows.flip(0), rows[:5]]))
    other, again = validate(tmp_path / "b", Tells(), padded)
    assert other == logged
    assert again == body


@pytest.mark.parametrize("objective", [Objective, Tells])
def test_it_is_silent_where_nothing_is_told_or_nothing_read(tmp_path: Path, objective: Any) -> None:
    data = FindingData() if objective is Objective else Data()
    logged, body = validate(tmp_path, objective(), data)
    assert not [name for name in logged if "finding" in name or "local" in name]
    assert body is None


def test_without_a_box_there_is_auroc_alone(tmp_path: Path) -> None:
    class Unboxed(FindingData):
        def val_dataloader(self) -> Any:
            tables = self.tables
            return [Loader(t, torch.arange(len(t.image))[t.image % 3 == 0]) for t in tables]

    logged, body = validate(tmp_path, Tells(), Unboxed())
    assert {name for name in logged if "local" in name} == set()
    assert 0 < logged["val/finding_auroc"] < 1
    assert body["macro"]["boxes"] == 0
    assert body["macro"]["localised"]["0.1"]["value"] is None


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_where_nothing_can_be_scored_nothing_is_logged_and_nothing_ends(
    tmp_path: Path, stage: str
) -> None:
    class Unknown(FindingData):
        def val_dataloader(self) -> Any:
            for loader in (loaders := super().val_dataloader()):
                loader.find = nothing
            return loaders

    runs = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run = runs.fit if stage == "fit" else runs.validate
    run(Tells(), datamodule=Unknown())
    assert not [name for name in runs.callback_metrics if "finding" in name or "local" in name]


def test_the_test_split_has_a_file_of_its_own(tmp_path: Path) -> None:
    logged, body = validate(tmp_path, Tells(), FindingData(), "test")
    assert "test/finding_auroc" in logged
    assert body["stage"] == "test"


def test_a_fit_logs_and_prints_one_line_without_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = trainer(tmp_path, max_epochs=1, num_sanity_val_steps=-1)  # which is no score
    runs.fit(Tells(), datamodule=FindingData())
    value = float(np.mean(list(auroc_by_hand().values())))
    assert float(runs.callback_metrics["val/finding_auroc"]) == pytest.approx(value)
    printed = capsys.readouterr().out
    assert f"epoch 0: findings AUROC {value:.3f}, boxes found at 0.1" in printed
    assert printed.count("findings AUROC") == 1
    assert not (tmp_path / "findings_val.json").exists()


def test_a_validation_that_was_cut_short_is_no_score(tmp_path: Path) -> None:
    runs = trainer(tmp_path, StopAt(1, 1), max_epochs=1, num_sanity_val_steps=0)
    runs.fit(Tells(), datamodule=FindingData())
    assert not [name for name in runs.callback_metrics if "finding" in name or "local" in name]


def test_logits_that_are_not_finite_are_told(tmp_path: Path) -> None:
    class Broken(Tells):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            found = super().validation_step(batch, batch_idx, dataloader_idx)
            found["logits"][batch.image % 16 == 3] = math.nan
            found["boxes"][batch.image % 16 == 3] = math.nan
            return found

    with pytest.warns(UserWarning, match="images have logits without value"):
        logged, _ = validate(tmp_path, Broken(), FindingData())
    assert "val/finding_auroc" not in logged
    assert 0 < logged["val/localised@0.1"] < 1


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finding_probe\.seed must be 0 or more, not -1"):
        FindingProbe(seed=-1)


def gathered(ranks: int | None = None) -> list[Tensor]:
    """Rank 1 of two has the later rows, in batches of other widths; of three, rank 2 has none."""
    table, collector = labelled(2), FindingCollector()
    rows = torch.arange(len(table.image))
    if ranks is not None:
        rows = rows[: 40 if ranks > 1 else None] if rank() == 0 else rows[40:]
        rows = rows[:0] if rank() > 1 else rows
    for batch in Loader(table, rows, size=7) if len(rows) else ():
        logits, boxes = told(batch.images, batch.image)
        outputs = {"image": batch.image, "patient": batch.patient}
        collector.add(outputs | {"logits": logits, "boxes": boxes}, batch)
    found = collector.gather(torch.device("cpu"))
    assert found is not None
    return [getattr(found, name) for name in type(found).__slots__]


def on_rank() -> list[Tensor]:
    return gathered(world_size())


@pytest.mark.parametrize("ranks", [2, 3])
def test_rows_of_all_ranks_are_those_of_one(ranks: int) -> None:
    alone = gathered()
    assert alone[0].tolist() == labelled(2).image.tolist()
    for columns in run_on_ranks(on_rank, ranks):
        for mine, theirs in zip(columns, alone, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
