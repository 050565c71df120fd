"""The commands for knees of README.md, and for gaze of docs/methods.md, do what they say."""

import csv
import shlex
from pathlib import Path

import pytest

from lightning_rad import sharding
from tests.command import lightning_rad
from tests.configs.test_stacks import CONFIGS, printed

ROOT = CONFIGS.parent


def commands(file: str, word: str) -> list[list[str]]:
    """The commands of a document, in words, that hold a word."""
    lines = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    found = [
        shlex.split(line, comments=True) for line in lines if line.startswith("lightning-rad ")
    ]
    return [command for command in found if word in command]


@pytest.fixture(scope="module")
def knees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the README's command, but for how many and how large."""
    [[_, *making]] = commands("README.md", "knee")
    assert making[:5] == ["shards", "synthesize", "demo/knees", "--body", "knee"]
    folder = tmp_path_factory.mktemp("knees")
    sharding.synthesize(folder, body="knee", patients=50, size=48, images_per_shard=20, workers=1)
    return folder


def test_the_knowledge_contrast_of_the_readme_learns_from_knees(
    knees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    [[_, *fit]] = commands("README.md", "configs/data/knees.yaml")
    few = (
        "--data.global_batch",
        "16",
        "--trainer.max_steps",
        "1",
        "--trainer.log_every_n_steps",
        "1",
    )
    quiet = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
    net = ("--model.init_args.encoder.init_args.name", "test_resnet")
    where = ("--data.manifest", str(knees), "--run", str(tmp_path))
    plain = ("--trainer.precision", "32-true", "--trainer.limit_val_batches", "0")
    lightning_rad(*fit, *where, *few, *quiet, *net, *plain)
    with (tmp_path / "metrics.csv").open() as file:
        logged = next(csv.DictReader(file))
    assert float(logged["train/focal"]) > 0
    assert float(logged["train/contrast"]) > 0
    # boxes go by other words than grades: without the README's aliases none would be taken
    assert float(logged["train/region_annotated"]) > 0


def test_the_commands_for_gaze_on_a_cpu_fit_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    made = [words[3] for words in commands("docs/methods.md", "synthesize")]
    first, second = commands("docs/methods.md", "fit")
    predictor, focused = (printed(words[2:], capsys) for words in (first, second))
    [annotate] = commands("docs/methods.md", "annotate")
    assert annotate[3:] == [made[1], focused["data"]["manifest"], "--gaze", annotate[-1]]
    assert predictor["data"]["manifest"] == made[0]
    assert annotate[-1] == f"{predictor['run']}/checkpoints"
    assert {view["class_path"].rpartition(".")[2] for view in focused["data"]["views"]} == {
        "FocusView"
    }
