"""Reports that are missing, empty, endless or no text, and readers that do not fit them.

What a run makes of the former, training and evaluating; the latter are refused in one line.
"""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning import Callback, Trainer

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Loading
from lightning_rad.data.source import BadSampleError
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.reports import ReportProbe
from lightning_rad.modalities.report import text_hash
from lightning_rad.modalities.words import train_words
from lightning_rad.schema import ViewBatch
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import stack
from tests.data.reports import SETTINGS, VIEWS, altered, images_of, reports_of, source_of, study_of
from tests.nn.test_text_pretrained import folder
from tests.nn.texts import SENTENCES
from tests.objectives.small_nets import TOKENIZER
from tests.objectives.test_image_report import image_report
from tests.objectives.test_refers import refers

pytestmark = pytest.mark.filterwarnings("ignore:The '.*' does not have many workers")
BOTH = pytest.mark.parametrize("make", [refers, image_report])
WITHOUT, EMPTY, LONG, UTF16 = range(4)
SAID = {EMPTY: b"COMPARISON: none.", LONG: b"FINDINGS:" + b" left effusion" * 5000}
NO_TEXT = "Small effusion.".encode("utf-16")
ENCODER = {
    "class_path": "lightning_rad.nn.encoders.Encoder",
    "init_args": {"name": "test_resnet", "image_size": None, "kwargs": None},
}


def data_of(shards: Path) -> RadiographData:
    changes = {"views": VIEWS[:1] * 3, "loading": Loading(threads=0, max_bad_fraction=0.2)}
    independent = replace(SETTINGS["shuffle"], images="independent")
    return RadiographData(str(shards), **(SETTINGS | changes | {"shuffle": independent}))


def trainer_of(folder: Path, *callbacks: Callback, **how: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_model_summary=False,
        **(quiet | how),
    )


class Keeps(Callback):
    """The losses of a fit, and of every row its report and the images that it shows."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[tuple[int, set[int]]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: ViewBatch, *_: Any
    ) -> None:
        assert batch.report is not None
        self.losses.append(float(outputs["loss"]))
        shown = [set(images) for images in batch.image.T.tolist()]
        self.rows += zip(batch.report.hash.tolist(), shown, strict=True)


@BOTH
def test_training_leaves_out_what_says_nothing_and_reads_the_rest(
    tiny_shards: Path, tmp_path: Path, make: Callable[[], Any]
) -> None:
    said = SAID | {UTF16: NO_TEXT}
    shards = altered(tiny_shards, tmp_path / "train", without=[WITHOUT], said=said)
    source, objective, kept = source_of(shards), make().float(), Keeps()
    texts = {
        study: text_hash(objective.reading.text(data))
        for study, data in enumerate(reports_of(source))
        if study not in (WITHOUT, EMPTY, UTF16)
    }
    epochs = math.ceil(2 * len(texts) / 8)
    fit = trainer_of(tmp_path, kept, max_steps=epochs, max_epochs=-1, limit_val_batches=0)
    fit.fit(objective, datamodule=data_of(shards))
    assert np.isfinite(kept.losses).all()
    came = {study_of(source, image) for _, shown in kept.rows for image in shown}
    assert came == set(texts)  # the long one among them
    for said_hash, shown in kept.rows:
        assert {texts[study_of(source, image)] for image in shown} == {said_hash}
    alone = {study for study in texts if len(images_of(source, study)) == 1}
    assert alone
    assert max(len(shown) for _, shown in kept.rows) > 1


@BOTH
def test_evaluation_leaves_out_what_says_nothing_and_counts_the_rest(
    tiny_shards: Path, tmp_path: Path, make: Callable[[], Any]
) -> None:
    shards = altered(tiny_shards, tmp_path / "val", without=[WITHOUT], said=SAID, split="val")
    studies = len(source_of(shards, "val").index.studies)
    probe = ReportProbe(bootstrap=PatientBootstrap(20))
    validate = trainer_of(tmp_path, probe)
    validate.validate(make().float(), datamodule=data_of(shards), verbose=False)
    body = json.loads((tmp_path / "reports_val.json").read_text())
    assert body["studies"] == studies - 2
    assert all(math.isfinite(each["value"]) for each in body["measures"].values())


@BOTH
def test_a_report_that_is_not_utf8_ends_evaluation_by_name(
    tiny_shards: Path, tmp_path: Path, make: Callable[[], Any]
) -> None:
    shards = altered(tiny_shards, tmp_path / "val", said={UTF16: NO_TEXT}, split="val")
    with pytest.raises(BadSampleError, match=r"val-0000\d\d\.tar, key .*not UTF-8") as told:
        trainer_of(tmp_path).validate(make().float(), datamodule=data_of(shards), verbose=False)
    assert "\n" not in str(told.value)


# --- readers that do not fit

ARMS = {
    "refers_small": ("three_view_reports_small", "text"),
    "image_report_clip_small": ("one_view_reports_small", "text.encoder"),
}


def arguments(shards: Path, to: Path, objective: str) -> list[str]:
    return [
        *(*stack(objective=objective, view=ARMS[objective][0]), "--run", str(to / "run")),
        *("--data.manifest", str(shards), "--data.global_batch", "8"),
        *("--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"),
        *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "100"),
    ]


@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize("objective", ARMS)
def test_a_text_encoder_that_is_missing_or_of_another_width_is_one_line(
    objective: str,
    command: str,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = f"--model.init_args.{ARMS[objective][1]}"
    run = [
        *(command, *arguments(tiny_shards, tmp_path, objective)),
        *(
            "--model.init_args.reports.tokenizer",
            TOKENIZER,
            "--model.init_args.reports.limit",
            "12",
        ),
        *(text, "lightning_rad.nn.text_pretrained.PretrainedText"),
    ]
    there = str(folder(tmp_path / "tiny"))
    missing = refused(capsys, *run, f"{text}.init_args.folder", str(tmp_path / "nowhere"))
    assert f"text.folder: no folder {tmp_path / 'nowhere'}" in missing
    wide = [f"{text}.init_args.folder", there, f"{text}.init_args.out_features", "768"]
    assert f"text.out_features: 768, and {there} is 16 wide" in refused(capsys, *run, *wide)


@pytest.mark.parametrize("objective", ARMS)
def test_weights_of_another_tokeniser_are_not_evaluated(
    objective: str, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(train_words(SENTENCES, vocabulary=60))
    small = tmp_path / "small.yaml"
    small.write_text(f"model: {{init_args: {{encoder: {json.dumps(ENCODER)}}}}}")
    run = [*arguments(tiny_shards, tmp_path, objective), "-c", str(small)]
    words = "--model.init_args.reports.tokenizer"
    lightning_rad("fit", *run, words, TOKENIZER, "--trainer.max_steps", "1")
    capsys.readouterr()
    said = refused(capsys, "validate", *run, words, str(other), "--ckpt_path", "last")
    assert "the checkpoint was trained with tokeniser" in said
    assert "this run has" in said
