from __future__ import annotations

import csv
import json
import math
import os
import random
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import pytorch_lightning
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lightning_rad.collectives import rank, world_size
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.linear import LinearProbe
from lightning_rad.evaluation.probe import FrozenProbe
from lightning_rad.schema import LabelledBatch
from tests.evaluation.tiny import FINDINGS, SIDE, Data, Encoder, Objective, labelled
from tests.gloo import run_on_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*' does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:Total length of .* across ranks is zero",
    "ignore:.*LeafSpec:FutureWarning",  # pytorch_lightning 2.6.6 on torch 2.14
)


def _keeping() -> Objective:
    """An encoder that keeps the pixels of both findings: it must beat a random one."""
    objective = Objective()
    linear = objective.encoder.net[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(8, SIDE * SIDE))
    return objective


def _trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **({"logger": False, "devices": 1} | settings),
    )


def _validate(
    folder: Path, probe: FrozenProbe, objective: Objective, data: Data, *, saved: bool = False
) -> Any:
    """What validate writes; saved: of an encoder that comes from a checkpoint."""
    checkpoint = _save(folder / "trained.ckpt", objective) if saved else None
    trainer = _trainer(folder, probe)
    trainer.validate(objective, datamodule=data, verbose=False, ckpt_path=checkpoint)
    return json.loads((folder / "probe_val.json").read_text())


def _save(path: Path, objective: Objective) -> Path:
    state = {"state_dict": objective.state_dict(), "epoch": 0, "global_step": 1}
    torch.save(state | {"pytorch-lightning_version": pytorch_lightning.__version__}, path)
    return path


def _fast(**settings: Any) -> FrozenProbe:
    return FrozenProbe(
        **({"bootstrap": PatientBootstrap(40), "linear": LinearProbe((0.01, 0.1))} | settings)
    )


def test_validate_prints_a_table_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = _validate(tmp_path, _fast(must_beat_random=True), _keeping(), Data(), saved=True)
    table = labelled(2)
    known = ~table.labels.isnan()
    assert [f["finding"] for f in body["findings"]] == list(FINDINGS)
    assert [f["n"] for f in body["findings"]] == known.sum(0).tolist()
    assert [f["positives"] for f in body["findings"]] == (table.labels == 1).sum(0).tolist()
    never = body["findings"][2]
    assert (never["undefined"], never["linear_auroc"]["value"]) == ("one class", None)
    first, second = body["findings"][0]["linear_auroc"], body["findings"][1]["linear_auroc"]
    macro = body["macro"]["linear_auroc"]
    assert body["macro"]["findings"] == 2
    assert macro["value"] == pytest.approx((first["value"] + second["value"]) / 2)
    assert macro["low"] < macro["value"] < macro["high"]
    gain = body["macro"]["gain_linear_auroc"]
    random_value = body["macro"]["random_linear_auroc"]["value"]
    assert gain["value"] == pytest.approx(macro["value"] - random_value)
    assert gain["value"] > 0.05
    assert body["pretrained"]["rankme"] > 2
    printed = capsys.readouterr().out
    for word in (
        *FINDINGS,
        "one class",
        "macro of 2",
        f"{macro['value']:.3f}",
        "encoder - random",
    ):
        assert word in printed
    lines = list(csv.DictReader((tmp_path / "probe_val.csv").read_text().splitlines()))
    assert [line["finding"] for line in lines] == [*FINDINGS, "macro of 2"]
    assert float(lines[0]["linear_auroc_low"]) == first["low"]
    assert lines[2]["linear_auroc"] == ""


def test_the_metrics_are_those_of_the_same_probe_made_by_hand(tmp_path: Path) -> None:
    objective, strength = _keeping(), 0.03
    body = _validate(tmp_path, _fast(linear=LinearProbe((strength,))), objective, Data())
    objective.eval()
    fit, score = labelled(1), labelled(2)
    with torch.no_grad():
        x, q = (objective.encoder(t.images).numpy().astype(float) for t in (fit, score))
    x, q = (x - x.mean(0)) / x.std(0), (q - x.mean(0)) / x.std(0)
    for c in range(2):
        y, truth = fit.labels[:, c].numpy(), score.labels[:, c].numpy()
        known, scored = ~np.isnan(y), ~np.isnan(truth)
        peer = LogisticRegression(C=1 / (strength * known.sum()), tol=1e-10).fit(x[known], y[known])
        expected = roc_auc_score(truth[scored], peer.decision_function(q[scored]))
        assert body["findings"][c]["linear_auroc"]["value"] == pytest.approx(expected, abs=1e-3)


def _shuffled(rows: Tensor) -> Tensor:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(4))
    return torch.cat([rows[order], rows[order[:11]]])  # and some of them twice


def test_order_and_repeats_of_rows_do_not_change_a_bit(tmp_path: Path) -> None:
    plain = _validate(tmp_path / "a", _fast(), _pixels(), Data())
    mixed = _validate(tmp_path / "b", _fast(), _pixels(), Data(_shuffled))
    assert plain == mixed


def _share(rows: Tensor) -> Tensor:
    """A third for rank 0 of two, the rest for rank 1, both padded with repeats; odd orders."""
    cut = len(rows) // 3
    mine = rows[:cut].flip(0) if rank() == 0 else rows[cut:]
    return torch.cat([mine, mine[:1].expand(80 - len(mine))]) if world_size() > 1 else rows


def _pixels() -> Objective:
    """Features that are pixels: no arithmetic that could depend on a batch's other rows."""

    class Pixels(Encoder):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, : self.width]

        def fresh(self, seed: int) -> Pixels:
            torch.manual_seed(seed)
            other = Pixels()
            other.width = 1
            return other

        width = 8

    return Objective(Pixels())


def _on_a_rank(folder: Path, **settings: Any) -> tuple[dict[str, float], str]:
    """One rank of a real Trainer inside the test's gloo group; what it logged and wrote."""
    launched = {"RANK": rank(), "LOCAL_RANK": rank(), "GROUP_RANK": 0, "WORLD_SIZE": world_size()}
    launched |= {"LOCAL_WORLD_SIZE": world_size(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    launched |= {"TORCHELASTIC_RUN_ID": "test"}
    with mock.patch.dict(os.environ, {key: str(value) for key, value in launched.items()}):
        trainer = _trainer(
            folder,
            _fast(**settings),
            strategy="ddp",
            devices=world_size(),
            use_distributed_sampler=False,
        )
        trainer.validate(_pixels(), datamodule=Data(_share), verbose=False)
    written = (folder / "probe_val.json").read_text() if rank() == 0 else ""
    return {k: float(v) for k, v in trainer.callback_metrics.items()}, written


def _graded_on_a_rank(folder: Path) -> tuple[dict[str, float], str]:
    return _on_a_rank(folder, exclusive=[FINDINGS])


@pytest.mark.parametrize(
    ("on_a_rank", "grades"), [(_on_a_rank, []), (_graded_on_a_rank, [FINDINGS])]
)
def test_two_ranks_with_unequal_counts_equal_one_process_to_the_bit(
    tmp_path: Path, on_a_rank: Any, grades: Any
) -> None:
    trainer = _trainer(tmp_path / "one", _fast(exclusive=grades))
    trainer.validate(_pixels(), datamodule=Data(), verbose=False)
    expected = {k: float(v) for k, v in trainer.callback_metrics.items()}
    (first, written), (second, _) = run_on_ranks(on_a_rank, 2, tmp_path / "two")
    assert first == second == expected
    assert ("val/linear_accuracy" in first) == bool(grades)
    assert written == (tmp_path / "one" / "probe_val.json").read_text()


class _Recorder(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.modes: set[bool] = set()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.modes.add(all(m.training for m in pl_module.modules()))


def _fit(folder: Path, *callbacks: Callback, **settings: Any) -> Objective:
    torch.manual_seed(0)
    objective = Objective()
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    trainer = _trainer(folder, *callbacks, **({"max_epochs": 3} | settings))
    trainer.fit(objective, datamodule=Data())
    return objective


def test_a_fit_with_the_probe_equals_one_without_to_the_bit(tmp_path: Path) -> None:
    plain = _fit(tmp_path)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    recorder = _Recorder()
    watched = _fit(tmp_path, _fast(), recorder, num_sanity_val_steps=2)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()
    assert recorder.modes == {True}
    assert all(p.requires_grad for p in watched.parameters())
    assert watched.encoder.fresh_calls == 1  # three probes, one random encoder


def test_fit_logs_every_number_prints_a_line_and_writes_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = _Recorder()
    _fit(tmp_path, _fast(), recorder, num_sanity_val_steps=2)
    assert recorder.seen[0] == {}  # the sanity check is no measurement
    assert len(recorder.seen) == 4
    names = {"knn_auroc", "linear_auroc", "linear_ap"}
    monitors = {"rankme", "uniformity", "patient_alignment", "feature_std"}
    aurocs = {"linear_auroc/effusion", "linear_auroc/nodule"}
    for seen in recorder.seen[1:]:
        assert set(seen) == {f"val/{n}" for n in names | monitors | aurocs} | {
            f"random/{n}" for n in names
        }
        assert all(math.isfinite(v) for v in seen.values())
        assert {k: v for k, v in seen.items() if k.startswith("random")} == {
            k: v for k, v in recorder.seen[1].items() if k.startswith("random")
        }
    assert recorder.seen[1]["val/linear_auroc"] != recorder.seen[3]["val/linear_auroc"]
    assert capsys.readouterr().out.count("linear AUROC") == 3
    assert not (tmp_path / "probe_val.json").exists()


def test_fit_measures_the_same_as_validate_on_the_same_weights(tmp_path: Path) -> None:
    recorder = _Recorder()
    objective = _fit(tmp_path, _fast(), recorder)
    body = _validate(tmp_path, _fast(), objective, Data())
    for name in ("knn_auroc", "linear_auroc", "linear_ap"):
        seen = recorder.seen[-1]
        assert seen[f"val/{name}"] == pytest.approx(body["macro"][name]["value"], abs=1e-6)
        assert seen[f"random/{name}"] == pytest.approx(
            body["macro"][f"random_{name}"]["value"], abs=1e-6
        )


def test_test_logs_under_its_own_name_and_writes_to_the_loggers_folder(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="run")
    trainer = _trainer(tmp_path, _fast(random_baseline=False), logger=logger)
    trainer.test(_keeping(), datamodule=Data(), verbose=False)
    assert "test/linear_auroc" in trainer.callback_metrics
    assert not any(k.startswith("random/") for k in trainer.callback_metrics)
    body = json.loads((Path(logger.log_dir) / "probe_test.json").read_text())
    assert (body["stage"], body["random"]) == ("test", None)
    assert "random_linear_auroc" not in body["macro"]


def test_validate_and_test_keep_each_others_files(tmp_path: Path) -> None:
    before = _validate(tmp_path, _fast(), _keeping(), Data())
    _trainer(tmp_path, _fast()).test(_pixels(), datamodule=Data(), verbose=False)
    names = ["probe_test.csv", "probe_test.json", "probe_val.csv", "probe_val.json"]
    assert sorted(p.name for p in tmp_path.glob("probe*")) == names
    assert json.loads((tmp_path / "probe_val.json").read_text()) == before


def test_an_encoder_without_a_checkpoint_is_said_to_be_as_constructed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "no checkpoint: the encoder as constructed"
    bare = _validate(tmp_path, _fast(), _keeping(), Data())
    assert bare["note"] == note
    assert note in capsys.readouterr().out
    loaded = _validate(tmp_path, _fast(), _keeping(), Data(), saved=True)
    assert (loaded["note"], loaded["checkpoint"]) == (None, str(tmp_path / "trained.ckpt"))
    assert note not in capsys.readouterr().out
    trainer = _trainer(tmp_path, _fast(), max_epochs=1)
    trainer.fit(_keeping(), datamodule=Data())
    trainer.validate(trainer.lightning_module, datamodule=Data(), verbose=False)
    assert json.loads((tmp_path / "probe_val.json").read_text())["note"] is None


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_encoder_without_a_checkpoint_is_not_asked_to_beat_random(
    tmp_path: Path, stage: str
) -> None:
    run = getattr(_trainer(tmp_path, _fast(must_beat_random=True)), stage)
    with pytest.raises(ValueError, match=r"^must_beat_random: .* --ckpt_path$"):
        run(_keeping(), datamodule=Data(), verbose=False)
    assert not list(tmp_path.glob("probe*"))


def test_an_encoder_that_does_not_beat_random_exits_after_the_results_are_written(
    tmp_path: Path,
) -> None:
    lost = _keeping()
    with torch.no_grad():
        for p in lost.encoder.parameters():
            p.zero_()
    with pytest.raises(SystemExit, match=r"must_beat_random: .* is not above random init's"):
        _validate(tmp_path, _fast(must_beat_random=True), lost, Data(), saved=True)
    body = json.loads((tmp_path / "probe_val.json").read_text())
    assert body["macro"]["linear_auroc"]["value"] == 0.5
    assert body["pretrained"]["rankme"] == 0.0


@pytest.mark.parametrize("which", ["fit", "score"])
def test_splits_without_rows_are_reported_not_raised(tmp_path: Path, which: str) -> None:
    tables = [
        _none(table) if which == name else table
        for name, table in (("fit", labelled(1)), ("score", labelled(2)))
    ]
    body = _validate(tmp_path, _fast(), _keeping(), Data(tables=tables))
    assert body["macro"]["linear_auroc"]["value"] is None
    reasons = [f["undefined"] for f in body["findings"]]
    assert reasons[:2] == ["one class to fit" if which == "fit" else "no label"] * 2


def test_an_undefined_auroc_does_not_pass_as_better_than_random(tmp_path: Path) -> None:
    unlabelled = labelled(2)
    unlabelled.labels.fill_(math.nan)
    with pytest.raises(SystemExit, match="nan, is not above random init's, nan"):
        _validate(
            tmp_path,
            _fast(must_beat_random=True),
            _keeping(),
            Data(tables=(labelled(1), unlabelled)),
            saved=True,
        )


def test_nothing_measured_does_not_pass_as_better_than_random(tmp_path: Path) -> None:
    empty = Data(tables=(_none(labelled(1)), _none(labelled(2))))
    with pytest.raises(SystemExit, match="nothing was measured"):
        _validate(tmp_path, _fast(must_beat_random=True), _keeping(), empty, saved=True)


def _none(table: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(table.images[:0], table.labels[:0], table.patient[:0], table.image[:0])


def test_features_that_are_not_finite_are_told_and_have_no_metric(tmp_path: Path) -> None:
    broken = _keeping()
    with torch.no_grad():
        next(broken.encoder.parameters()).fill_(math.nan)
    with pytest.warns(UserWarning, match="rows have non-finite features"):
        body = _validate(tmp_path, _fast(), broken, Data())
    assert body["findings"][0]["undefined"] == "not finite"
    assert body["macro"]["linear_auroc"]["value"] is None
    assert body["macro"]["random_linear_auroc"]["value"] > 0.5


def test_patients_on_both_sides_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="40 patients are both fitted on and scored"):
        _validate(tmp_path, _fast(), _keeping(), Data(tables=(labelled(1), labelled(1))))


def test_another_number_of_loaders_or_no_findings_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two labelled loaders.*gives 1"):
        _validate(tmp_path, _fast(), _keeping(), Data(tables=(labelled(1),)))
    nameless = Data()
    del nameless.labels
    with pytest.raises(ValueError, match="`labels` names the findings"):
        _validate(tmp_path, _fast(), _keeping(), nameless)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"seed": -1}, "seed"),
        ({"must_beat_random": True, "random_baseline": False}, "random_baseline: true"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        FrozenProbe(**settings)


def test_the_command_line_help_explains_every_setting() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(FrozenProbe)
    assert not re.findall(r"--(\S+) \S+\s+\((?:type|required)", parser.format_help())


def test_labels_that_exclude_each_other_are_scored_as_a_grade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = ["effusion", "nodule"]
    body = _validate(tmp_path, _fast(exclusive=[pair]), _keeping(), Data())
    (grade,) = body["grades"]
    labels = labelled(2).labels[:, :2]
    assert grade["levels"] == pair
    assert grade["n"] == int(((labels == 1).sum(1) == 1).sum())
    assert grade["n"] + grade["left_out"] == len(labels)
    # both levels are told from each other by pixels that the encoder keeps
    assert grade["linear_accuracy"]["low"] > 0.5
    assert grade["linear_mae"]["value"] == pytest.approx(1 - grade["linear_accuracy"]["value"])
    assert grade["linear_accuracy"]["value"] > grade["random_linear_accuracy"]["value"]
    assert f"{grade['linear_kappa']['value']:.3f}" in capsys.readouterr().out
    assert "grades" not in _validate(tmp_path, _fast(), _keeping(), Data())


def test_fit_logs_the_mean_of_several_grades_and_each(tmp_path: Path) -> None:
    recorder = _Recorder()
    grades = [["effusion", "nodule"], ["nodule", "never"]]
    _fit(tmp_path, _fast(exclusive=grades), recorder, max_epochs=1)
    seen = recorder.seen[-1]
    for name in ("val/linear_accuracy", "val/linear_mae", "val/knn_accuracy"):
        both = [seen[f"{name}/{grade}"] for grade in ("effusion", "nodule")]
        assert seen[name] == pytest.approx(sum(both) / 2)
    assert "random/linear_accuracy" in seen


def test_a_grade_of_a_label_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'kl_9', which is no label"):
        _validate(tmp_path, _fast(exclusive=[["effusion", "kl_9"]]), _keeping(), Data())
    with pytest.raises(ValueError, match="'kl_9', which is no label"):  # before it is needed
        _fit(tmp_path, _fast(exclusive=[["effusion", "kl_9"]]), limit_val_batches=0, max_epochs=1)
