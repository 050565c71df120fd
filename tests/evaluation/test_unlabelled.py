"""Shards without labels: nothing to probe the encoder on, but reports to be found and written."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_manifest
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import stack
from tests.data.reports import data_of, reading_of
from tests.objectives.small_nets import TOKENIZER

REPORTS = ["--model.init_args.reports.tokenizer", TOKENIZER]
CLIP = {"objective": "image_report_clip_small", "view": "one_view_reports_small"}
REFERS = {"objective": "refers_small", "view": "three_view_reports_small"}
ENCODER = """
model:
  init_args:
    encoder:
      class_path: lightning_rad.nn.encoders.Encoder
      init_args: {name: test_resnet, image_size: null, channels_last: false, kwargs: null}
"""
SMALL = """
model:
  init_args:
    reports: {limit: 24}
    decoder: {init_args: {width: 16, heads: 2, feedforward: 32}}
    text: {init_args: {width: 16, layers: 1, heads: 2}}
"""


def without_labels(shards: Path, to: Path, *, fields: tuple[str, ...] = ("report",)) -> Path:
    shutil.copytree(shards, to)
    replace(load_manifest(to), labels=(), fields=fields).save()
    return to


@pytest.fixture
def unlabelled(tiny_shards: Path, tmp_path: Path) -> Path:
    return without_labels(tiny_shards, tmp_path / "unlabelled")


def arguments(shards: Path, folder: Path, **axes: str) -> list[str]:
    (folder / "encoder.yaml").write_text(ENCODER)
    (folder / "small.yaml").write_text(SMALL if axes == REFERS else "{}")
    return [
        *(*stack(**axes), "-c", str(folder / "encoder.yaml"), "-c", str(folder / "small.yaml")),
        *("--run", str(folder / "run"), "--data.evaluation.fit_images", "8"),
        *("--data.manifest", str(shards), "--data.global_batch", "8"),
        *("--data.loading.threads", "0", "--trainer.precision", "32-true"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
        *("--trainer.max_epochs", "-1", "--trainer.max_steps", "1"),
        *("--trainer.val_check_interval", "1", "--trainer.check_val_every_n_epoch", "1"),
        *("--trainer.log_every_n_steps", "1"),
        *("--probe.bootstrap.samples", "20", "--report_probe.bootstrap.samples", "20"),
    ]


@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")
@pytest.mark.parametrize("axes", [CLIP, REFERS], ids=["clip", "refers"])
def test_a_run_that_reads_reports_measures_retrieval_there(
    unlabelled: Path, tmp_path: Path, axes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = [*arguments(unlabelled, tmp_path, **axes), *REPORTS]
    lightning_rad("fit", *run)
    said = capsys.readouterr().out
    assert said.count("recall@10 image to report") == 1
    assert "AUROC" not in said
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0].split(",")
    logged = {name for name in header if name.startswith("val/")}
    recalls = {f"recall_{way}@{k}" for way in ("i2t", "t2i", "chance") for k in (1, 5, 10)}
    written = {"perplexity"} if axes is REFERS else set()
    assert logged == {f"val/{name}" for name in recalls | written}
    assert (tmp_path / "run/reports_val.txt").exists() == bool(written)
    lightning_rad("validate", *run, "--ckpt_path", "last")
    said = capsys.readouterr().out
    assert "recall@10, image to report" in said
    assert "macro of 0" in said
    body = json.loads((tmp_path / "run/reports_val.json").read_text())
    assert set(body["measures"]) == recalls | written
    if written:
        sample = (tmp_path / "run/reports_val.txt").read_text()
        assert sample.startswith(f"{body['checkpoint']}: 8 of {body['studies']} studies of 'val'")


def test_a_run_that_reads_none_is_not_validated_there_and_validate_says_what_there_is(
    unlabelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = arguments(unlabelled, tmp_path, objective="simclr_small", view="two_view_small")
    with pytest.warns(UserWarning, match="Total length"), caplog.at_level(logging.WARNING):
        lightning_rad("fit", *run)
    assert f"no labelled train and val images in {unlabelled}: no validation" in caplog.text
    assert "val/" not in (tmp_path / "run/metrics.csv").read_text()
    capsys.readouterr()
    lightning_rad("validate", *run, "--ckpt_path", "last")
    said = capsys.readouterr().out
    assert "macro of 0" in said
    assert "recall" not in said


def test_a_run_that_reads_gaze_is_measured_there(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = without_labels(tiny_shards, tmp_path / "looked at", fields=("gaze",))
    axes = {"objective": "gaze_predictor_small", "view": "one_view_gaze_small"}
    run = [*arguments(shards, tmp_path, **axes), "--gaze_probe.bootstrap.samples", "20"]
    lightning_rad("fit", *run)
    assert "AUROC" not in capsys.readouterr().out.replace("AUC-Judd", "")
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0].split(",")
    logged = {name for name in header if name.startswith("val/")}
    assert logged >= {"val/gaze_cc", "val/gaze_kld"}
    assert all(name.startswith("val/gaze_") for name in logged)


def test_words_of_findings_are_refused_where_nothing_is_labelled(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.yaml"
    words.write_text("report_probe: {words: {nodule: [nodul]}}")
    run = [*arguments(unlabelled, tmp_path, **CLIP), *REPORTS, "-c", str(words)]
    assert "report_probe.words names ['nodule']" in refused(capsys, "fit", *run)


def named(manifest: Path) -> Evaluation:
    return Evaluation(WholeImage(16), manifest=str(manifest), batch=8)


def test_a_set_named_for_evaluation_may_have_reports_in_place_of_labels(
    tiny_shards: Path, other_shards: Path, tmp_path: Path
) -> None:
    reading = reading_of(tiny_shards)
    told = without_labels(other_shards, tmp_path / "told")
    data = data_of(tiny_shards, reading, evaluation=named(told))
    fitted, scored, studies = data.val_dataloader()
    assert (len(fitted), len(scored)) == (0, 0)
    assert sum(len(batch.views.unit) for batch in studies) == 3
    assert data_of(tiny_shards, None, evaluation=named(told)).val_dataloader() == []
    mute = without_labels(other_shards, tmp_path / "mute", fields=())
    with pytest.raises(ValueError, match=r"^data\.evaluation\.manifest .*mute needs") as no:
        data_of(tiny_shards, None, evaluation=named(mute))
    assert (
        "or reports in val, or gaze in train and val; it has [], [], ['test', 'train', 'val']"
        in str(no.value)
    )
    assert "\n" not in str(no.value)


def test_a_set_with_labels_in_no_scored_split_is_not_probed(
    tiny_shards: Path, tmp_path: Path
) -> None:
    shards = shutil.copytree(tiny_shards, tmp_path / "train")
    manifest = load_manifest(shards)
    replace(manifest, shards=manifest.of_split("train")).save()
    data: RadiographData = data_of(shards, reading_of(tiny_shards))
    assert data.val_dataloader() == []
