from __future__ import annotations

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
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from lightning_rad.collectives import rank, world_size
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.linear import LinearProbe
from lightning_rad.evaluation.probe import FrozenProbe
from lightning_rad.evaluation.reports import ReportProbe
from lightning_rad.evaluation.retrieval import recall
from tests.command import lightning_rad
from tests.evaluation.tiny import Data, StopAt
from tests.evaluation.tiny_reports import (
    SECRET,
    STUDIES,
    TEXTS,
    WORDS,
    Reader,
    StudyData,
    labels_of,
    studies,
)
from tests.gloo import run_on_ranks

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*' does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:Total length of .* across ranks is zero",
    "ignore:.*LeafSpec:FutureWarning",  # pytorch_lightning 2.6.6 on torch 2.14
)
BASE = Path(__file__).parents[2] / "configs" / "base.yaml"
RECALLS = {f"recall_{way}@{k}" for way in ("i2t", "t2i", "chance") for k in (1, 5, 10)}
WRITTEN = {"perplexity", "finding_f1", "finding_f1_micro", "finding_f1_chance"}


def _probe(**settings: Any) -> ReportProbe:
    return ReportProbe(**({"bootstrap": PatientBootstrap(40), "words": WORDS} | settings))


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


def _validate(folder: Path, probe: ReportProbe, objective: Reader, data: Data) -> Any:
    trainer = _trainer(folder, probe)
    trainer.validate(objective, datamodule=data, verbose=False)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    file = folder / "reports_val.json"
    return logged, json.loads(file.read_text()) if file.exists() else None


def test_validate_prints_a_table_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged, body = _validate(tmp_path, _probe(), Reader(), StudyData())
    assert set(logged) == {f"val/{name}" for name in RECALLS | WRITTEN}
    batch = studies(list(range(STUDIES)))
    image, text = batch.views.views.flatten(2)
    assert batch.views.report is not None
    hits = recall(image, text, batch.views.report.hash)
    measures = body["measures"]
    for name, each in hits.items():
        assert logged[f"val/recall_{name}"] == pytest.approx(each.mean(), abs=1e-6)
        assert measures[f"recall_{name}"]["value"] == pytest.approx(each.mean())
        assert measures[f"recall_{name}"]["n"] == STUDIES
    one = measures["recall_i2t@1"]
    assert one["low"] < one["value"] < one["high"]
    tokens = (batch.views.report.tokens["caption"][:, 1:] >= 0).sum(1)
    nll = 0.5 * tokens + 0.01 * torch.arange(STUDIES)
    expected = math.exp(float(nll.sum() / tokens.sum()))
    assert measures["perplexity"]["value"] == pytest.approx(expected)
    assert (body["studies"], body["distinct_reports"]) == (STUDIES, len(set(TEXTS)))
    assert body["note"] == "no checkpoint: the encoder as constructed"
    printed = capsys.readouterr().out
    for word in ("recall@10, image to report", "perplexity", "effusion", f"{one['value']:.3f} ("):
        assert word in printed
    for k in (1, 5, 10):  # each recall stands beside chance at its own k
        (line,) = (row for row in printed.splitlines() if f"recall@{k}, image to report" in row)
        assert f"{measures[f'recall_chance@{k}']['value']:.3f} (" in line
    assert SECRET not in printed


def test_the_findings_of_generated_reports_are_held_against_the_labels(tmp_path: Path) -> None:
    _, body = _validate(tmp_path, _probe(), Reader(), StudyData())
    for column, finding in enumerate(WORDS):
        present = [labels_of(study)[column] for study in range(STUDIES)]
        # each fourth study is written to be normal, the others truly
        both = sum(p for study, p in enumerate(present) if study % 4 != 1)
        expected = 2 * both / (both + sum(present))
        assert body["measures"][f"finding_f1/{finding}"]["value"] == pytest.approx(expected)
        assert body["measures"][f"finding_f1/{finding}"]["n"] == STUDIES
    assert body["measures"]["true_f1"]["value"] == 1.0
    assert body["measures"]["finding_f1"]["value"] < 1.0


def test_the_sample_shows_generated_reports_beside_the_true_ones(tmp_path: Path) -> None:
    _validate(tmp_path, _probe(samples=20), Reader(), StudyData())
    text = (tmp_path / "reports_val.txt").read_text()
    blocks = re.findall(r"study (\d+)\n  true: +(.*)\n  generated: (.*)\n", text)
    assert len(blocks) == 20
    for number, true, generated in blocks:
        study = int(number) - 100
        assert true == TEXTS[study]
        assert generated == ("no effusion . no nodule ." if study % 4 == 1 else true)
    assert any(SECRET in true for _, true, _ in blocks)
    again = _trainer(tmp_path / "again", _probe(samples=20))
    again.validate(Reader(), datamodule=StudyData(), verbose=False)
    assert (tmp_path / "again" / "reports_val.txt").read_text() == text
    _validate(tmp_path / "none", _probe(samples=0), Reader(), StudyData())
    assert not (tmp_path / "none" / "reports_val.txt").exists()


def test_an_objective_that_only_reads_has_retrieval_and_no_sample(tmp_path: Path) -> None:
    logged, body = _validate(tmp_path, _probe(), Reader(writes=False), StudyData())
    assert set(logged) == {f"val/{name}" for name in RECALLS}
    assert set(body["measures"]) == RECALLS
    assert not (tmp_path / "reports_val.txt").exists()


@pytest.mark.parametrize("data", [Data(), StudyData(count=0)])
def test_without_studies_it_is_silent(
    tmp_path: Path, data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    logged, body = _validate(tmp_path, _probe(), Reader(), data)
    assert (logged, body) == ({}, None)
    assert capsys.readouterr().out == ""


def test_test_logs_and_writes_under_its_own_name(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, _probe(), logger=CSVLogger(tmp_path, name="run"))
    trainer.test(Reader(), datamodule=StudyData(), verbose=False)
    assert "test/recall_t2i@5" in trainer.callback_metrics
    assert trainer.log_dir is not None
    assert json.loads((Path(trainer.log_dir) / "reports_test.json").read_text())["stage"] == "test"


def _shuffled(rows: Tensor) -> Tensor:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(4))
    return torch.cat([rows[order], rows[order[:11]]])  # and some of them twice


def test_order_and_repeats_of_studies_do_not_change_a_bit(tmp_path: Path) -> None:
    plain = _validate(tmp_path / "a", _probe(), Reader(), StudyData())
    mixed = _validate(tmp_path / "b", _probe(), Reader(), StudyData(_shuffled))
    assert plain == mixed
    files = [tmp_path / name / "reports_val.txt" for name in "ab"]
    assert files[0].read_text() == files[1].read_text()


def _share(rows: Tensor) -> Tensor:
    """A third for rank 0 of two, the rest for rank 1, both padded with repeats; odd orders."""
    if world_size() == 1:
        return rows
    cut = len(rows) // 3
    mine = rows[:cut].flip(0) if rank() == 0 else rows[cut:]
    return torch.cat([mine, mine[:1].expand(80 - len(mine))])


def _on_a_rank(folder: Path) -> tuple[dict[str, float], list[str]]:
    """One rank of a real Trainer inside the test's gloo group; what it logged and wrote."""
    launched = {"RANK": rank(), "LOCAL_RANK": rank(), "GROUP_RANK": 0, "WORLD_SIZE": world_size()}
    launched |= {"LOCAL_WORLD_SIZE": world_size(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    launched |= {"TORCHELASTIC_RUN_ID": "test"}
    with mock.patch.dict(os.environ, {key: str(value) for key, value in launched.items()}):
        trainer = _trainer(
            folder, _probe(), strategy="ddp", devices=world_size(), use_distributed_sampler=False
        )
        trainer.validate(Reader(), datamodule=StudyData(_share), verbose=False)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    return logged, _files(folder) if rank() == 0 else []


def _files(folder: Path) -> list[str]:
    return [(folder / f"reports_val.{kind}").read_text() for kind in ("json", "txt")]


def test_two_ranks_with_unequal_counts_equal_one_process_to_the_bit(tmp_path: Path) -> None:
    expected, _ = _validate(tmp_path / "one", _probe(), Reader(), StudyData())
    (first, written), (second, _) = run_on_ranks(_on_a_rank, 2, tmp_path / "two")
    assert first == second == expected
    assert written == _files(tmp_path / "one")


class _Recorder(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.modes: set[bool] = set()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.modes.add(all(m.training for m in pl_module.modules()))


def _fit(folder: Path, *callbacks: Callback, **settings: Any) -> Reader:
    objective = Reader()
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    trainer = _trainer(folder, *callbacks, **({"max_epochs": 2} | settings))
    trainer.fit(objective, datamodule=StudyData())
    return objective


def test_a_fit_with_the_probe_equals_one_without_to_the_bit(tmp_path: Path) -> None:
    plain = _fit(tmp_path)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    recorder = _Recorder()
    watched = _fit(tmp_path, _probe(), recorder, num_sanity_val_steps=1)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()
    assert recorder.modes == {True}
    assert all(p.requires_grad for p in watched.parameters())


def test_fit_logs_every_number_and_keeps_the_last_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = _Recorder()
    _fit(tmp_path, _probe(), recorder, num_sanity_val_steps=-1)
    assert recorder.seen[0] == {}  # the sanity check is no measurement
    assert len(recorder.seen) == 3
    for seen in recorder.seen[1:]:
        assert set(seen) == {f"val/{name}" for name in RECALLS | WRITTEN}
    validated, _ = _validate(tmp_path / "validate", _probe(), Reader(), StudyData())
    for name in RECALLS | {"perplexity"}:  # over all studies, in a fit too
        assert recorder.seen[-1][f"val/{name}"] == validated[f"val/{name}"]
    present = [labels_of(study) for study in range(7)]  # the first batch
    shares = []
    for column in range(2):
        both = sum(p[column] for study, p in enumerate(present) if study % 4 != 1)
        shares.append(2 * both / (both + sum(p[column] for p in present)))
    assert recorder.seen[-1]["val/finding_f1"] == pytest.approx(np.mean(shares))
    printed = capsys.readouterr().out
    assert printed.count("recall@10 image to report") == 2
    assert SECRET not in printed
    assert not (tmp_path / "reports_val.json").exists()
    text = (tmp_path / "reports_val.txt").read_text()
    assert text.startswith("epoch 1, step 12: 7 of 26 studies of 'val'")


class _Hosted(CSVLogger):
    """Takes text as a hosted logger does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.texts: list[dict[str, Any]] = []

    def log_text(self, key: str, columns: Any = None, data: Any = None, step: Any = None) -> None:
        self.texts.append({"key": key, "columns": columns, "data": data, "step": step})


@pytest.mark.parametrize("share", [False, True])
def test_a_hosted_logger_gets_words_of_reports_only_where_told_to(
    tmp_path: Path, share: bool
) -> None:
    logger = _Hosted(tmp_path)
    _fit(tmp_path, _probe(share_samples=share, samples=3), logger=[logger, CSVLogger(tmp_path)])
    assert [text["key"] for text in logger.texts] == ["val/reports"] * (2 if share else 0)
    for text, step in zip(logger.texts, (6, 12), strict=False):
        assert (text["columns"], text["step"]) == (["study", "true", "generated"], step)
        assert len(text["data"]) == 3


@pytest.mark.parametrize("loader", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_a_validation_that_was_cut_short_measures_what_was_complete(
    tmp_path: Path, loader: int, last: bool
) -> None:
    batches = [len(each) for each in StudyData().val_dataloader()]
    stop = StopAt(loader, batches[loader] - 1 if last else 1)
    frozen = FrozenProbe(bootstrap=PatientBootstrap(0), linear=LinearProbe((0.01,)))
    recorder = _Recorder()
    _fit(tmp_path, stop, frozen, _probe(), recorder, max_epochs=1, num_sanity_val_steps=0)
    (seen,) = recorder.seen
    assert ("val/linear_auroc" in seen) == (loader == 2)
    assert not any("recall" in name for name in seen)


def test_embeddings_that_are_not_finite_are_told(tmp_path: Path) -> None:
    class Broken(Reader):
        def validation_step(self, *arguments: Any) -> Any:
            read = super().validation_step(*arguments)
            if "image" in read and "text" in read:
                read["image"][0] = math.nan
            return read

        test_step = validation_step

    with pytest.warns(UserWarning, match="4 of 26 studies have non-finite embeddings"):
        logged, _ = _validate(tmp_path, _probe(), Broken(), StudyData())
    assert 0 < logged["val/recall_i2t@10"] < 1


def test_the_frozen_probe_is_the_same_with_studies_behind_its_images(tmp_path: Path) -> None:
    measured = []
    for name, data in (("images", Data()), ("studies", StudyData())):
        probe = FrozenProbe(bootstrap=PatientBootstrap(20), linear=LinearProbe((0.01, 0.1)))
        trainer = _trainer(tmp_path / name, probe, _probe())
        trainer.validate(Reader(), datamodule=data, verbose=False)
        measured.append((tmp_path / name / "probe_val.json").read_text())
    assert measured[0] == measured[1]
    assert (tmp_path / "studies" / "reports_val.json").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": -1}, "report_probe.seed must be 0 or more, not -1"),
        ({"samples": -2}, "report_probe.samples must be 0 or more, not -2"),
        ({"words": {"nodule": []}}, r"report_probe.words.nodule needs words, not \[\]"),
        ({"words": {"nodule": ["a", " "]}}, "report_probe.words.nodule needs words"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReportProbe(**settings)


def test_words_of_a_finding_without_labels_are_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    probe = _probe(words={"nodul": ["nodul"]})
    for stage in ("fit", "validate"):
        recorder = _Recorder()
        with pytest.raises(ValueError, match=r"report_probe.words names \['nodul'\].*effusion"):
            getattr(_trainer(tmp_path, probe, recorder), stage)(Reader(), datamodule=StudyData())
        assert not recorder.modes


def test_the_command_line_help_explains_every_setting() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(ReportProbe)
    assert not re.findall(r"--(\S+) \S+\s+\((?:type|required)", parser.format_help())


def test_every_run_has_the_probe_and_takes_its_words_from_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("report_probe:\n  samples: 3\n  words:\n    nodule: [nodul]\n")
    with pytest.raises(SystemExit) as ended:
        lightning_rad("validate", "-c", str(BASE), "-c", str(file), "--print_config")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    shown = printed[printed.index("report_probe:") :].splitlines()[:12]
    assert "  samples: 3" in shown
    assert "    nodule:" in shown
