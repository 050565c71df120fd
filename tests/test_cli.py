"""The commands as a user runs them: fit, resume, validate, and one-line errors."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.strategies import SingleDeviceStrategy

from lightning_rad import checkpoints
from lightning_rad.cli.run import RunCLI
from lightning_rad.training.layer_sync import SyncBatchNorms
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import stack


def saved(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    newest = checkpoints.newest(run / "checkpoints")
    assert newest is not None
    return checkpoints.read(newest)


@pytest.fixture
def small(tmp_path: Path, tiny_shards: Path) -> list[str]:
    """A stack that trains a tiny encoder on 32 pixels into tmp_path/run."""
    view = yaml.safe_load(
        (Path(__file__).parents[1] / "configs/view/two_view_small.yaml").read_text()
    )
    for part in (*view["data"]["views"], view["data"]["evaluation"]["view"]):
        part["init_args"]["size"] = 32
    (tmp_path / "view.yaml").write_text(yaml.safe_dump(view))
    return [
        *stack(),
        *("-c", str(tmp_path / "view.yaml")),
        *("--run", str(tmp_path / "run")),
        *("--data.manifest", str(tiny_shards)),
        *("--data.global_batch", "16"),
        *("--data.loading.threads", "1"),
        *("--model.init_args.encoder.init_args.name", "test_resnet"),
        *("--trainer.precision", "32-true"),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_model_summary", "false"),
        *("--trainer.max_epochs", "-1"),
        *("--trainer.log_every_n_steps", "1"),
        *("--probe.bootstrap.samples", "20"),
    ]


def test_fit_resume_validate(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    lightning_rad("fit", *small, "--trainer.max_steps", "3")
    assert saved(run)["global_step"] == 3

    lightning_rad("fit", *small, "--trainer.max_steps", "5", "--ckpt_path", "last")
    checkpoint = saved(run)
    assert checkpoint["global_step"] == 5
    assert checkpoint["RadiographData"]["positions"] == [5 * 16]
    folders = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert folders == ["step-00000003", "step-00000005"]
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/nt_xent")]
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4]
    assert all(float(row["throughput/images_per_s"]) > 0 for row in rows)
    assert all(0 <= float(row["throughput/data_wait"]) <= 1 for row in rows)

    capsys.readouterr()
    lightning_rad("validate", "-c", str(run / "fit.yaml"), "--ckpt_path", "last")
    shown = capsys.readouterr().out
    assert "macro" in shown
    assert "effusion" in shown
    measured = json.loads((run / "probe_val.json").read_text())
    assert measured["checkpoint"] == str(run / "checkpoints" / "step-00000005")
    assert {"fit.yaml", "validate.yaml"} <= {p.name for p in run.iterdir()}


def test_the_saved_config_repeats_the_run(small: list[str], tmp_path: Path) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "2")
    first = saved(tmp_path / "run")["state_dict"]
    metrics = (tmp_path / "run/metrics.csv").read_text()
    lightning_rad("fit", "-c", str(tmp_path / "run/fit.yaml"), "--run", str(tmp_path / "again"))
    assert (tmp_path / "run/metrics.csv").read_text() == metrics
    assert (tmp_path / "again/metrics.csv").is_file()
    second = saved(tmp_path / "again")["state_dict"]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_objective_is_not_resumed(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    with pytest.raises(SystemExit) as ended:
        lightning_rad(
            *("fit", *small, "--trainer.max_steps", "2", "--ckpt_path", "last"),
            *("--model.init_args.temperature", "0.5"),
        )
    assert ended.value.code == 2
    assert "model.init_args.temperature=0.2, this run has 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data.manifest", "no/such"], "no/such: no such manifest"),
        (["--data.global_batch", "12"], "data.global_batch=12"),
        (["--data.global_batch", "4000"], "data.global_batch=4000"),
        (["--model.init_args.encoder.init_args.name", "resnet_18"], "resnet18"),
        (["--model.init_args.temperature", "0"], "temperature must be at least 0.01"),
        (["--trainer.max_steps", "-1"], "set trainer.max_steps or trainer.max_epochs"),
        (["--trainer.accelerator", "gpu"], "No supported gpu backend"),
        (["--data.evaluation.manifest", "nowhere"], "nowhere: no such manifest"),
        (["--embed_at_once", "0"], "embed_at_once must be at least 1 or null, got 0"),
        (["--embed_at_once", "5"], "embed_at_once is 5 of a rank's 16, set it to null or choose"),
    ],
)
def test_what_a_user_got_wrong_is_one_line(
    small: list[str], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "fit", *small, "--trainer.max_steps", "1", *arguments)


def test_a_run_is_not_written_over_nor_a_missing_checkpoint_measured(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = refused(capsys, "validate", *small, "--ckpt_path", "last")
    assert f"there is no checkpoint in {tmp_path / 'run/checkpoints'}" in missing
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    again = refused(capsys, "fit", *small, "--trainer.max_steps", "1")
    assert "run holds a run already: go on with --ckpt_path last" in again
    lightning_rad("fit", *small, "--trainer.max_steps", "2", "--ckpt_path", "last")
    assert yaml.safe_load((tmp_path / "run/fit.yaml").read_text())["ckpt_path"] is None


@pytest.mark.parametrize("run", ["taken", "taken/run", "/proc/run"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_data_are_looked_at(
    small: list[str], tmp_path: Path, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / run  # which is /proc/run for the last
    said = refused(capsys, "fit", *small, "--run", str(folder), "--data.manifest", "no/such")
    there = "/proc" if run == "/proc/run" else tmp_path / "taken"
    assert f"--run {folder}: {there} cannot be written: N" in said
    assert "no/such" not in said


class Alone(SingleDeviceStrategy):
    """A strategy that needs no other process."""


def test_a_strategy_is_named_by_its_class_on_the_command_line(
    small: list[str], tmp_path: Path
) -> None:
    name = "tests.test_cli.Alone"
    lightning_rad("fit", *small, "--trainer.max_steps", "1", "--trainer.strategy", name)
    strategy = yaml.safe_load((tmp_path / "run/fit.yaml").read_text())["trainer"]["strategy"]
    assert strategy["class_path"] == name


def test_synchronised_norms_keep_their_activation_under_lightnings_strategies_too(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[RunCLI] = []
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda cli, _: built.append(cli))
    lightning_rad("fit", *small, "--trainer.devices", "2", "--trainer.sync_batchnorm", "true")
    assert isinstance(built[0].trainer.strategy._layer_sync, SyncBatchNorms)


def test_last_begins_where_there_is_no_checkpoint_yet_and_says_so(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1", "--ckpt_path", "last")
    said = capsys.readouterr().err
    assert f"no checkpoint in {tmp_path / 'run/checkpoints'} yet, beginning anew" in said
    lightning_rad("fit", *small, "--trainer.max_steps", "2", "--ckpt_path", "last")
    assert "beginning anew" not in capsys.readouterr().err
    assert saved(tmp_path / "run")["global_step"] == 2


def test_the_checkpoint_of_another_objective_is_refused_by_name(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    last = str(tmp_path / "run/checkpoints")
    micle = "lightning_rad.objectives.micle.MICLe"  # takes what SimCLR takes
    asked = [*small, "--ckpt_path", last, "--model.class_path", micle]
    said = refused(capsys, "validate", *asked)
    assert "the checkpoint is of SimCLR and this run is MICLe: --init_from starts" in said


def test_nothing_to_validate_is_said(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "validate", *small, "--trainer.limit_val_batches", "0")
    assert "trainer.limit_val_batches is 0" in said


def test_an_error_is_not_lost_behind_pages_of_usage(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "fit", *small, "--model.init_args.momentumm", "0.9")
    assert "momentumm" in said
    assert len(said.splitlines()) < 15


def test_what_is_no_checkpoint_is_one_line(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    whole = tmp_path / "run/checkpoints/step-00000001"
    for name in ("contents.json", "plain.pt", ".metadata", "__0_0.distcp"):
        torn = tmp_path / f"torn-{name}"
        shutil.copytree(whole, torn)
        (torn / name).write_bytes((whole / name).read_bytes()[:-40])
        said = refused(capsys, "validate", *small, "--ckpt_path", str(torn))
        assert f"{torn / name}: damaged" in said or f"{torn / name}: not readable" in said
    old = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}}, old)
    for command in ("validate", "fit"):
        said = refused(capsys, command, *small, "--ckpt_path", str(old))
        assert f"{old}: a file; to go on takes a checkpoint folder such as step-00000500" in said
    said = refused(capsys, "validate", *small, "--ckpt_path", str(tmp_path / "nowhere"))
    assert "there is no such checkpoint" in said
    said = refused(capsys, "validate", *small, "--ckpt_path", str(tmp_path))
    assert "neither a checkpoint nor a folder of checkpoints" in said


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    lightning_rad("fit", *small, "--trainer.max_steps", "2", "--ckpt_path", "last")
    data = tmp_path / "run/checkpoints/step-00000002/__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-1])
    capsys.readouterr()
    lightning_rad("fit", *small, "--trainer.max_steps", "2", "--ckpt_path", "last")
    said = capsys.readouterr().err
    assert said.count("checkpoint step-00000002 passed over") == 1
    assert f"{data}: damaged checkpoint" in said
    assert saved(tmp_path / "run")["global_step"] == 2
    data.unlink()
    (tmp_path / "run/checkpoints/step-00000001/plain.pt").unlink()
    said = refused(capsys, "fit", *small, "--trainer.max_steps", "3", "--ckpt_path", "last")
    assert "none of its checkpoints is whole (step-" in said


def test_other_data_and_another_temperature_are_resumed_only_by_force(
    small: list[str],
    tmp_path: Path,
    other_shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    on = [*("--trainer.max_steps", "2"), *("--ckpt_path", "last")]
    other = [*("--data.manifest", str(other_shards)), *("--model.init_args.temperature", "0.5")]
    before = (tmp_path / "run/fit.yaml").read_bytes()
    assert "data.manifest" in refused(capsys, "fit", *small, *on, *other[:2])
    assert (tmp_path / "run/fit.yaml").read_bytes() == before
    capsys.readouterr()
    lightning_rad("fit", *small, *on, *other, "--force_resume", "true")
    said = capsys.readouterr().err
    assert "--force_resume: the checkpoint was trained with data.manifest=" in said
    assert "model.init_args.temperature=0.2, this run has 0.5" in said
    assert saved(tmp_path / "run")["global_step"] == 2
    config = yaml.safe_load((tmp_path / "run/fit.yaml").read_text())
    assert config["force_resume"] is False


def test_making_shards_ends_with_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "made")
    lightning_rad("shards", "synthesize", out, "--patients", "4", "--size", "32", "--workers", "1")
    assert "images in" in capsys.readouterr().out.splitlines()[-1]


def test_shards_commands_take_their_arguments(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("shards", "inspect", str(tiny_shards), "--sheet", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "effusion" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        lightning_rad("shards", "build", "no_recipe.yaml", str(tmp_path / "out"))
    assert ended.value.code == 2
    assert "no_recipe.yaml" in capsys.readouterr().err


def test_a_checkpoint_of_another_encoder_is_one_line(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "1")
    other = ("--model.init_args.encoder.init_args.name", "test_vit")
    size = ("--model.init_args.encoder.init_args.image_size", "32")
    last = str(tmp_path / "run/checkpoints")
    with pytest.raises(SystemExit) as ended:
        lightning_rad("validate", *small, *other, *size, "--ckpt_path", last)
    assert ended.value.code == 2
    assert "the checkpoint is of another model" in capsys.readouterr().err


def test_embedding_in_parts_changes_what_a_step_needs_and_not_what_it_is(
    small: list[str], tmp_path: Path
) -> None:
    """Three steps of SimCLR on a transformer, in float32; the saved config repeats the parts."""
    of_rows = tmp_path / "of_rows.yaml"
    encoder = {"init_args": {"name": "test_vit", "image_size": 32}}
    projector = {"init_args": {"norm": "layer"}}
    of_rows.write_text(
        yaml.safe_dump({"model": {"init_args": {"encoder": encoder, "projector": projector}}})
    )
    losses, weights = [], []
    for parts in ("null", "5"):
        run = tmp_path / f"run-{parts}"
        asked = ("-c", str(of_rows), "--embed_at_once", parts, "--run", str(run))
        lightning_rad("fit", *small, *asked, "--trainer.max_steps", "3")
        with (run / "metrics.csv").open(newline="") as file:
            rows = [row["train/nt_xent"] for row in csv.DictReader(file)]
        losses.append([float(loss) for loss in rows if loss])
        end = saved(run)["state_dict"]
        weights.append(end["projector.layers.0.weight"])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)
    assert not torch.equal(*weights)  # so it did add up in parts
    assert yaml.safe_load((run / "fit.yaml").read_text())["embed_at_once"] == 5
