"""Three steps of every objective as it is configured, from the command line; kills and resumes."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_rad import checkpoints
from lightning_rad.data.corpus import report_texts
from lightning_rad.modalities.words import train_words
from tests.command import lightning_rad
from tests.configs.test_stacks import CONFIGS, stack
from tests.runs import Run, train, train_and_kill
from tests.training.test_resume import assert_same_bits

OBJECTIVES = sorted(file.stem for file in (CONFIGS / "objective").glob("*.yaml"))
SIZE, BATCH, QUEUE, WIDTH = 32, 8, 40, 64
REPORT_VIEWS = {"image_report": "one_view_reports_small", "refers": "three_view_reports_small"}
"""Beginnings of the names of objectives that read reports, and the views that they take."""
EVIDENCE_VIEWS = {
    "gaze_predictor": "one_view_gaze_small",
    "knowledge_contrast": "one_view_findings_small",
}
"""The same of objectives that read what else is known of images."""


def smaller(objective: str) -> dict[str, Any]:
    """Changes that leave everything what it is and take away its size."""
    model = yaml.safe_load((CONFIGS / f"objective/{objective}.yaml").read_text())["model"]
    given = model["init_args"]
    changes: dict[str, Any] = {}
    for head in ("projector", "predictor"):
        if sizes := heads(given.get(head, {})):
            changes[head] = sizes
    if "projector" in given.get("text", {}):
        text = {"init_args": {"width": WIDTH, "layers": 1, "heads": 2}}
        changes["text"] = {"encoder": text, "projector": heads(given["text"]["projector"])}
    if objective.startswith("gaze_predictor"):
        changes["gaze"], changes["decoder"] = {"side": 16}, {"init_args": {"width": 8, "side": 16}}
    elif "decoder" in given:
        changes["decoder"] = {"init_args": {"width": WIDTH, "heads": 2, "feedforward": WIDTH}}
        changes["text"] = {"init_args": {"width": WIDTH, "layers": 1, "heads": 2}}
    if "queue" in given:  # 8 keys or 24 a step do not divide it
        changes["queue"] = {"init_args": {"length": QUEUE}}
    if "partners" in given:
        changes["partners"] = 4
    name = given["encoder"]["init_args"]["name"]
    encoder = {"image_size": SIZE} if "vit" in name else {"name": "test_resnet"}
    if "vit_base" in name:
        encoder["name"] = name.replace("base", "tiny")
    changes["encoder"] = {"init_args": encoder}
    if "findings" in given:
        changes["findings"] = {"reading": {"names": ["effusion", "nodule"], "aliases": {}}}
        changes["radiomic"] = {"projector": heads(given["radiomic"]["projector"])}
        encoder["kwargs"] = {"output_stride": 8}  # or the map is one place
    return changes


def heads(given: dict[str, Any]) -> dict[str, Any]:
    sizes = {"hidden", "out_features"} & given.get("init_args", {}).keys()
    return {"init_args": dict.fromkeys(sorted(sizes), WIDTH)} if sizes else {}


@pytest.fixture(scope="session")
def tokenizer(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Trained on the reports of the shards."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    texts = (data.decode() for _, data in report_texts([tiny_shards]))
    path.write_text(train_words(texts, vocabulary=200))
    return str(path)


def view_of(objective: str) -> dict[str, Any]:
    """The views that an objective takes, on 32 pixels."""
    known = REPORT_VIEWS | EVIDENCE_VIEWS
    reads = [view for name, view in known.items() if objective.startswith(name)]
    name = reads[0] if reads else "two_view_small"
    view: dict[str, Any] = yaml.safe_load((CONFIGS / f"view/{name}.yaml").read_text())
    for part in (*view["data"]["views"], view["data"]["evaluation"]["view"]):
        part["init_args"]["size"] = SIZE
    return view


def reads_reports(objective: str) -> bool:
    return objective.startswith(tuple(REPORT_VIEWS))


@pytest.fixture
def arguments(
    request: pytest.FixtureRequest, tiny_shards: Path, tokenizer: str, tmp_path: Path
) -> list[str]:
    """The stack of an objective in bfloat16, on views of 32 pixels, in batches of 8."""
    given = smaller(request.param)
    if reads_reports(request.param):
        given["reports"] = {"tokenizer": tokenizer}
    changes = view_of(request.param) | {"model": {"init_args": given}}
    (tmp_path / "smaller.yaml").write_text(yaml.safe_dump(changes))
    return [
        *stack(objective=request.param),
        *("-c", str(tmp_path / "smaller.yaml")),
        *("--run", str(tmp_path / "run")),
        *("--data.manifest", str(tiny_shards)),
        *("--data.global_batch", str(BATCH)),
        *("--data.loading.threads", "0"),
        *("--trainer.limit_val_batches", "0"),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_model_summary", "false"),
        *("--trainer.max_epochs", "-1"),
        *("--trainer.log_every_n_steps", "1"),
    ]


@pytest.mark.parametrize("arguments", OBJECTIVES, indirect=True)
def test_three_steps_and_one_more_after_a_resume(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run/checkpoints"
    lightning_rad("fit", *arguments, "--trainer.max_steps", "3")
    first = checkpoints.read(checkpoints.resolve(folder))
    assert first["global_step"] == 3
    lightning_rad("fit", *arguments, "--trainer.max_steps", "4", "--ckpt_path", "last")
    second = checkpoints.read(checkpoints.resolve(folder))
    assert second["global_step"] == 4
    assert second["RadiographData"]["positions"] == [4 * BATCH]
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    terms = {name for name in rows[0] if name.startswith("train/")}
    steps = [row for row in rows if any(row[name] for name in terms)]
    assert [int(row["step"]) for row in steps] == [0, 1, 2, 3]
    assert all(torch.tensor(float(row[name])).isfinite() for row in steps for name in terms)
    old, new = first["state_dict"], second["state_dict"]
    assert all(value.isfinite().all() for value in new.values() if value.ndim)
    assert any(not torch.equal(old[name], new[name]) for name in new if "encoder" in name)
    if "queue.pointer" in new:
        a_step = 3 * BATCH if "c2l" in str(arguments) else BATCH
        assert int(new["queue.pointer"]) == 4 * a_step % QUEUE


@pytest.mark.parametrize("arguments", ["simclr_small", "refers_small"], indirect=True)
def test_parameters_of_16_bits_get_views_of_16_bits(arguments: list[str], tmp_path: Path) -> None:
    how = ("--trainer.precision", "bf16-true", "--trainer.max_steps", "2")
    lightning_rad("fit", *arguments, *how)
    state = checkpoints.read(checkpoints.resolve(tmp_path / "run/checkpoints"))["state_dict"]
    weights = [value for name, value in state.items() if name.endswith("weight")]
    assert {value.dtype for value in weights} == {torch.bfloat16}
    assert all(value.isfinite().all() for value in weights)


LAYOUTS: dict[str, dict[str, Any]] = {
    "moco": {},
    "moco-accumulated": {"trainer": {"accumulate_grad_batches": 2}},
    "moco-two_ranks": {"ranks": 2},
    "moco_v3": {},
    "byol": {},
    "c2l": {},
    "micle": {"unit": "patient"},
    "image_report": {"unit": "study"},
    "refers": {"unit": "study"},
    "gaze_predictor": {},
    "knowledge_contrast": {},
    "knowledge_contrast-two_ranks": {"ranks": 2},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path
) -> Run:
    folder = tmp_path_factory.mktemp(f"undisturbed-{request.param}")
    objective = request.param.partition("-")[0]
    run = Run(tiny_shards, folder, 7, objective=objective, **LAYOUTS[request.param])
    train(run)
    return run


def test_a_killed_run_ends_with_the_state_of_an_undisturbed_one(
    undisturbed: Run, tmp_path: Path
) -> None:
    """Weights, twin, queue, pointer, the constant of NCE and the statistics of radiomics."""
    run = replace(undisturbed, folder=tmp_path)
    train_and_kill(run, 3)
    assert max(run.log) < 6
    assert 2 <= run.checkpoint["global_step"] < 6  # so that it does not start anew
    train(run)
    mine, theirs = run.checkpoint, undisturbed.checkpoint
    names = mine["state_dict"]
    without_twin = ("micle", "image_report", "refers", "gaze_predictor", "knowledge_contrast")
    assert any(name.startswith("twin.") for name in names) == (run.objective not in without_twin)
    assert ("queue.pointer" in names) == (run.objective in ("moco", "c2l"))
    if run.objective == "knowledge_contrast":
        assert int(names["z_score.count"].max()) == 7 * run.global_batch
    for section in ("state_dict", "optimizer_states", "lr_schedulers", "RadiographData"):
        assert_same_bits(mine[section], theirs[section], section)
