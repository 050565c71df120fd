"""What a run cannot work with: its data beside its objective, and its command line.

Each is refused before the first step, on the command line in one line.
"""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer

from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.modalities.words import train_words
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import CONFIGS, stack
from tests.nn.texts import SENTENCES
from tests.objectives.small_nets import TOKENIZER
from tests.objectives.test_bad_input import ALL, Make
from tests.objectives.test_byol import byol
from tests.objectives.test_moco import moco
from tests.objectives.test_refers import refers
from tests.runs import Run, data

WORDS = ["--model.init_args.reports.tokenizer", TOKENIZER]
TEXT = "--model.init_args.text.encoder"
PRETRAINED = "lightning_rad.nn.text_pretrained.PretrainedText"


def test_views_that_are_mirrored_one_by_one_are_refused_where_words_of_side_are_read(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = data(Run(tiny_shards, tmp_path, 1, objective="refers", unit="study"))
    module.views[1] = RandomView(16, crop=Crop(flip=0.5))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match=r"^data\.views\[1\]\.crop\.flip is 0\.5: where reports"):
        trainer.fit(refers().float(), datamodule=module)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "tokenizer.json: no such tokenizer"),
        (["--model.init_args.reports.limit", "3"], "model.init_args.reports.limit 3"),
        (
            ["--model.init_args.contrast.image_share", "2"],
            "contrast.image_share must lie in [0, 1]",
        ),
        (["--model.init_args.contrast.temperature", "0"], "at least 0.01"),
    ],
)
def test_refers_says_in_one_line_what_of_its_reports_it_cannot_use(
    arguments: list[str], said: str, tiny_shards: Path, tmp_path: Path, capsys: Any
) -> None:
    assert said in refused(
        capsys,
        *("fit", *stack(objective="refers_small", view="three_view_reports_small")),
        *("--run", str(tmp_path), "--data.manifest", str(tiny_shards)),
        *("--model.init_args.reports.tokenizer", str(tmp_path / "tokenizer.json"), *arguments),
    )


@ALL
def test_a_world_size_that_does_not_divide_the_batch_is_refused(
    make: Make, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the data module, whatever the objective; 3 ranks share out 4 groups."""
    module = data(Run(tiny_shards, tmp_path, 1))
    module.unit = "study"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    monkeypatch.setattr(Trainer, "world_size", 3)
    with pytest.raises(ValueError, match=r"3 ranks .*groups"):
        trainer.fit(make(), datamodule=module)


def test_a_batch_that_groups_do_not_divide_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    module = data(Run(tiny_shards, tmp_path, 1, global_batch=10))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match=r"data\.global_batch=10"):
        trainer.fit(moco(), datamodule=module)


def test_a_third_recipe_in_the_data_module_counts_as_a_view(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = data(Run(tiny_shards, tmp_path, 1))
    module.views = [*module.views, RandomView(16, crop=Crop())]
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(
        ValueError, match=r"^BYOL makes use of 2 views of a unit; data\.views has 3"
    ):
        trainer.fit(byol(), datamodule=module)


@pytest.mark.parametrize(
    ("objective", "arguments", "said"),
    [
        ("moco_v2_small", ["--model.init_args.momentum", "1.5"], "momentum: 1.5 of the twin"),
        ("byol_small", ["--model.init_args.momentum", "-1"], "momentum: -1"),
        (
            "byol_small",
            ["--model.init_args.predictor.init_args.out_features", "7"],
            "predictor.out_features is 7, projector.out_features 128",
        ),
        ("c2l_small", ["--model.init_args.contrast.temperature", "0"], "at least 0.01"),
        ("c2l_small", ["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches is 2"),
        ("c2l_small", ["--model.init_args.partners", "3"], "partners: 3 does not divide the 8"),
        (
            "moco_v2_small",
            ["--model.init_args.queue.init_args.length", "7"],
            "queue.length: 7 is less than the 8 keys",
        ),
        ("micle_small", ["--data.unit", "image"], "data.unit must be study or patient"),
        (
            "micle_small",
            ["--data.shuffle.images", "independent"],
            "data.shuffle.images must be distinct, it is independent",
        ),
        ("moco_v2_small", ["--trainer.precision", "bf16-true"], "set bf16-mixed"),
        (
            "image_report_siglip_small",
            [*WORDS, "--model.init_args.contrast.exchange", "ring"],
            "contrast.exchange is ring",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "--data.unit", "patient"],
            "data.unit must be study or image, it is patient",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "-c", str(CONFIGS / "view/two_view_mirrored_112.yaml")],
            "data.views[0].crop.flip is 0.5",
        ),
        (
            "image_report_clip_small",
            ["--model.init_args.reports.tokenizer", "nowhere.json"],
            "nowhere.json",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "--model.init_args.text.projector.init_args.out_features", "7"],
            "text.projector.out_features is 7, projector.out_features 128",
        ),
        (
            "image_report_clip_small",
            [*WORDS, TEXT, PRETRAINED, f"{TEXT}.init_args.folder", "nowhere"],
            "text.folder: no folder nowhere",
        ),
    ],
)
def test_from_the_command_line_it_is_one_line(
    objective: str,
    arguments: list[str],
    said: str,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in refused(
        capsys,
        *("fit", *stack(objective=objective), "--run", str(tmp_path / "run")),
        *("--data.manifest", str(tiny_shards), "--data.global_batch", "8"),
        *("--model.init_args.encoder.init_args.name", "test_resnet"),
        *("--trainer.max_steps", "1", *arguments),
    )


def test_a_transformer_built_for_another_size_than_the_views_is_refused(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(
        capsys,
        *("fit", *stack(objective="moco_v3_vit"), "--run", str(tmp_path)),
        *("--data.manifest", str(tiny_shards), "--data.global_batch", "16"),
        *("--model.init_args.encoder.init_args.image_size", "96"),
    )
    assert "built for images of 96 pixels, data.views have 64: set model.init_args.encoder" in said


def test_a_resume_with_another_tokeniser_is_one_line(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(train_words(SENTENCES, vocabulary=60))
    arguments = [
        *("fit", *stack(objective="image_report_clip_small", view="one_view_reports_small")),
        *("--run", str(tmp_path / "run"), "--data.manifest", str(tiny_shards)),
        *("--data.global_batch", "8", "--trainer.limit_val_batches", "0"),
        *("--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"),
        *("--model.init_args.encoder.init_args.name", "test_resnet"),
    ]
    lightning_rad(*arguments, *WORDS, "--trainer.max_steps", "1")
    capsys.readouterr()
    resumed = [*WORDS[:1], str(other), "--trainer.max_steps", "2", "--ckpt_path", "last"]
    said = refused(capsys, *arguments, *resumed)
    assert "the checkpoint was trained with tokeniser" in said
