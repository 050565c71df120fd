"""Findings, boxes and greys that a knowledge contrast cannot use, from the command line on.

Each setting is refused in one line before the first step; each picture has a defined answer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.schema import ViewBatch
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import stack
from tests.evaluation.test_unlabelled import without_labels
from tests.objectives.evidence import with_findings
from tests.objectives.fixed import fit_steps, random_batches
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.test_bad_input import refusal

MODEL = "--model.init_args"
NAMES = f"{MODEL}.findings.reading.names"
ENCODER = f"{MODEL}.encoder.init_args"
BARE = (f"{ENCODER}.kwargs", "{}", f"{ENCODER}.name")
"""An encoder by its name, without what the config says of a ResNet."""


def command(shards: Path, run: Path, *changes: str, view: str = "one_view_findings_small") -> Any:
    return [
        *("fit", *stack(objective="knowledge_contrast_small", view=view), "--run", str(run)),
        *("--data.manifest", str(shards), "--data.global_batch", "8"),
        *("--trainer.limit_val_batches", "0", "--trainer.enable_model_summary", "false"),
        *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "-1"),
        *("--trainer.max_steps", "1", f"{ENCODER}.name", "test_resnet", *changes),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([NAMES, "[edema, gout]"], "has no label 'gout', which model.init_args.findings.reading"),
        ([NAMES, "[]"], "findings.reading.names: some, each once, got []"),
        ([NAMES, "[edema, edema]"], "findings.reading.names: some, each once, got ['edema', "),
        ([f"{MODEL}.findings.reading.labelled", "1.5"], "findings.reading.labelled must lie in"),
        ([f"{MODEL}.findings.reading.aliases", "{water: wet}"], "'water' stands for 'wet'"),
        ([f"{MODEL}.findings.gamma", "-1"], "findings.gamma must be at least 0, got -1"),
        ([f"{MODEL}.contrast.weight", "-0.1"], "contrast.weight must lie in [0, 1], got -0.1"),
        ([f"{MODEL}.contrast.temperature", "0"], "temperature must be at least 0.01"),
        ([f"{MODEL}.radiomic.feedback.every", "0"], "feedback.every must be at least 1, got 0"),
        ([f"{MODEL}.radiomic.feedback.threshold", "1"], "feedback.threshold must lie between 0"),
        ([f"{MODEL}.radiomic.bins", "{width: 25, count: 8}"], "bins"),
        (
            [f"{MODEL}.radiomic.projector.init_args.out_features", "7"],
            "radiomic.projector.out_features is 7, projector.out_features 64",
        ),
        (["--trainer.precision", "bf16-true"], "set bf16-mixed"),
        ([*BARE, "test_vit"], "set kwargs {class_token: false, global_pool: avg}"),
        ([*BARE, "torchvision/resnet18"], "'torchvision/resnet18': tokens need a timm"),
    ],
)
def test_from_the_command_line_it_is_one_line(
    changes: list[str], said: str, tiny_shards: Path, tmp_path: Path, capsys: Any
) -> None:
    assert said in refused(capsys, *command(tiny_shards, tmp_path / "run", *changes))


def test_two_views_are_refused(tiny_shards: Path, tmp_path: Path, capsys: Any) -> None:
    given = command(tiny_shards, tmp_path / "run", view="two_view_small")
    assert "KnowledgeContrast makes use of 1 views of a unit; data.views has 2" in refused(
        capsys, *given
    )


def test_a_set_without_labels_is_refused(tiny_shards: Path, tmp_path: Path, capsys: Any) -> None:
    shards = without_labels(tiny_shards, tmp_path / "shards")
    said = refused(capsys, *command(shards, tmp_path / "run"))
    assert "has no label 'atelectasis'" in said


def test_a_key_that_findings_do_not_have_is_named(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = command(tiny_shards, tmp_path / "run", f"{MODEL}.findings.reading.titles", "[edema]")
    with pytest.raises(SystemExit) as ended:
        lightning_rad(*given)
    assert ended.value.code == 2
    assert "titles" in capsys.readouterr().err


def test_a_resume_with_other_findings_is_one_line(
    tiny_shards: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "run"
    lightning_rad(*command(tiny_shards, run, NAMES, "[edema, nodule]"))
    capsys.readouterr()
    more = ("--trainer.max_steps", "2", "--ckpt_path", "last")
    said = refused(capsys, *command(tiny_shards, run, NAMES, "[nodule, edema]", *more))
    assert "findings" in said
    assert "['nodule', 'edema']" in said


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_statistics_in_16_bits_are_refused_and_the_classifier_alone_is_not(precision: str) -> None:
    batches = with_findings(random_batches(1, views=1))
    how: dict[str, Any] = {"batches": batches, "precision": precision}
    said = refusal(knowledge_contrast(), **how)
    assert said.endswith(f"statistics of radiomics in 16 bits; set {precision[:-4]}mixed")
    alone = knowledge_contrast(contrast={"weight": 0.0})
    fit_steps(alone, batches, precision=precision, callbacks=[])
    assert all(p.isfinite().all() for p in alone.parameters())


NAN = math.nan
BOXES = {
    "outside": [40.0, 40.0, 50.0, 50.0],
    "half outside": [-8.0, -8.0, 5.0, 5.0],
    "of no area": [4.0, 4.0, 4.0, 9.0],
    "turned over": [9.0, 9.0, 4.0, 4.0],
    "of one pixel": [4.0, 4.0, 5.0, 5.0],
    "of a row": [0.0, 4.0, 16.0, 5.0],
    "narrower than a pixel": [4.2, 4.2, 4.3, 9.0],
    "everywhere": [0.0, 0.0, 16.0, 16.0],
    "huge": [-1e6, -1e6, 1e6, 1e6],
    "no number": [NAN, NAN, NAN, NAN],
    "half a number": [1.0, 1.0, NAN, 5.0],
    "endless": [-math.inf, 0.0, math.inf, 8.0],
}
ANNOTATED = set(BOXES) - {"outside", "of no area", "turned over", "no number", "half a number"}


def boxed(box: list[float], grey: int | None = None) -> ViewBatch:
    [batch] = with_findings(random_batches(1, views=1), boxed=range(8))
    assert batch.findings is not None
    assert batch.greys is not None
    boxes = torch.tensor(box).expand_as(batch.findings.boxes)
    greys: Tensor = batch.greys if grey is None else torch.full_like(batch.greys, grey)
    return replace(batch, findings=replace(batch.findings, boxes=boxes), greys=greys)


@pytest.mark.parametrize("grey", [None, 0, 255])
@pytest.mark.parametrize("name", BOXES)
def test_any_box_and_any_greys_give_steps_that_are_finite(name: str, grey: int | None) -> None:
    objective = knowledge_contrast()
    snapshots = fit_steps(objective, [boxed(BOXES[name], grey)] * 2)
    annotated = float(objective._shares["annotated"])
    assert annotated == (name in ANNOTATED), name
    for one in snapshots:
        assert all(value.isfinite().all() for value in one.state.values())
        assert all(math.isfinite(value) for value in one.terms.values())
