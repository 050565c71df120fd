"""Staged pretraining: a run starts from the encoder of another, or of a file, or says why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from torch import Tensor

from lightning_rad import checkpoints
from lightning_rad.nn.encoders import Encoder
from lightning_rad.objectives.base import Objective
from tests.command import lightning_rad
from tests.configs.test_stacks import CONFIGS, stack
from tests.objectives.small_nets import TOKENIZER
from tests.objectives.test_steps import reads_reports, view_of

SMALL = sorted(file.stem for file in (CONFIGS / "objective").glob("*_small.yaml"))
ENCODER = "--model.init_args.encoder.init_args."
PROJECTOR = "--model.init_args.projector.init_args."
NET = {"name": "test_resnet", "image_size": None, "kwargs": None}

ONE_BATCH = ("--trainer.limit_val_batches", "1")


class Stage:
    """Commands on tiny shards, a folder a run, and the weights that each training began with."""

    def __init__(self, folder: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._shards = shards
        self._capsys = capsys

    def _stack(self, objective: str) -> list[str]:
        """The objective on images of 32 pixels, in the smallest encoder."""
        model: dict[str, Any] = {"encoder": {"init_args": NET}}
        if "projector:" in (CONFIGS / f"objective/{objective}.yaml").read_text():
            model["projector"] = {"init_args": {"hidden": 16}}
        if reads_reports(objective):
            model["reports"] = {"tokenizer": TOKENIZER}
        file = self.folder / f"{objective}.yaml"
        file.write_text(yaml.safe_dump(view_of(objective) | {"model": {"init_args": model}}))
        return [*stack(objective=objective), "-c", str(file)]

    def fit(self, run: str, *arguments: str, objective: str = "simclr_small") -> str:
        """Train two steps; what was said on standard error."""
        words = [
            *("fit", *self._stack(objective)),
            *("--run", str(self.folder / run), "--data.manifest", str(self._shards)),
            *("--data.global_batch", "8", "--data.loading.threads", "1"),
            *("--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
            *("--trainer.enable_model_summary", "false", "--trainer.limit_val_batches", "0"),
            *("--trainer.max_epochs", "-1", "--trainer.max_steps", "2"),
            *("--probe.bootstrap.samples", "10", *arguments),
        ]
        return self.say(*words)

    def say(self, *words: str) -> str:
        self._capsys.readouterr()
        lightning_rad(*words)
        return self._capsys.readouterr().err

    def refuse(self, run: str, *arguments: str, **how: Any) -> str:
        """The one line that a training ends in before its first step."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            self.fit(run, *arguments, **how)
        assert ended.value.code == 2
        assert not (self.folder / run / "checkpoints").exists()
        said = self._capsys.readouterr().err.splitlines()
        assert sum(line.startswith("lightning-rad: ") for line in said) == 1
        assert said[-1].startswith("lightning-rad: ")
        return said[-1]

    def checkpoint(self, run: str) -> Path:
        """The folder that a user names: of all checkpoints of a run."""
        return self.folder / run / "checkpoints"

    def content(self, run: str) -> dict[str, Any]:
        return checkpoints.read(checkpoints.resolve(self.checkpoint(run)))

    def state(self, run: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.content(run)["state_dict"]
        return state

    def config(self, run: str) -> Any:
        return yaml.safe_load((self.folder / run / "fit.yaml").read_text())


@pytest.fixture
def stage(tmp_path: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]) -> Stage:
    return Stage(tmp_path, tiny_shards, capsys)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The state of the last training at its step 0."""
    state: dict[str, Tensor] = {}

    def remember(self: Objective) -> None:
        state.clear()
        state.update({k: v.clone() for k, v in self.state_dict().items()})

    monkeypatch.setattr(Objective, "on_train_start", remember)
    return state


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_starts_from_the_encoder_of_another_run_and_then_stands_alone(
    stage: Stage, begun: dict[str, Tensor]
) -> None:
    stage.fit("first")
    untrained = dict(begun)
    file = str(stage.checkpoint("first"))
    wide = (f"{PROJECTOR}layers", "3", f"{PROJECTOR}out_features", "24")
    said = stage.fit("second", *wide, "--init_from", file)
    encoder = _below(stage.state("first"), "encoder.")
    assert _same(_below(begun, "encoder."), encoder)
    assert not _same(_below(untrained, "encoder."), encoder)
    counts = "90 of 90 tensors loaded, 0 missing, 0 unexpected; left aside: projector 12"
    assert f"init_from: {file}: {counts}\n" in said
    before = stage.config("second")

    # the first run may go away now
    shutil.rmtree(stage.folder / "first")
    saved = str(stage.folder / "second" / "fit.yaml")
    last = str(stage.checkpoint("second"))
    said = stage.say("validate", "-c", saved, "--ckpt_path", last, *ONE_BATCH)
    said += stage.say("fit", "-c", saved, "--trainer.max_steps", "3", "--ckpt_path", "last")
    assert "init_from" not in said
    for config in (before, stage.config("second")):
        assert config["init_from"] is None
        assert config["model"]["init_args"]["encoder"]["init_args"]["init_from"] == file
    content = stage.content("second")
    made = content["objective_config"]["init_args"]
    assert made["encoder"]["init_args"]["init_from"] == file
    assert content["global_step"] == 3


def test_each_objective_starts_from_another_and_another_from_it(
    stage: Stage, begun: dict[str, Tensor]
) -> None:
    """Round all of them: whatever else a checkpoint holds, the student arrives, in the twin too."""
    start: tuple[str, ...] = ()
    for place, objective in enumerate([*SMALL, SMALL[0]]):
        said = stage.fit(f"{place}", *start, objective=objective)
        if place:
            before = stage.state(f"{place - 1}")
            encoder = _below(before, "encoder.")
            assert _same(_below(begun, "encoder."), encoder), objective
            twin = _below(begun, "twin.net.0.")
            assert not twin or _same(twin, encoder), objective
            aside = said.partition("left aside: ")[2].partition("\n")[0]
            others = len(before) - len(encoder)
            assert sum(int(part.split()[1]) for part in aside.split(", ")) == others
        start = ("--init_from", str(stage.checkpoint(f"{place}")))


def test_a_run_starts_from_a_file_of_torchvision(stage: Stage, begun: dict[str, Tensor]) -> None:
    teacher = torchvision.models.resnet18(weights=None).state_dict()
    file = stage.folder / "resnet18.pth"
    torch.save(teacher, file)
    model = (f"{ENCODER}name", "torchvision/resnet18")
    said = stage.fit("run", *model, f"{ENCODER}init_from", str(file))
    assert f"{file}: 120 of 120 tensors loaded, 0 missing, 0 unexpected; left aside: fc 2" in said
    got = _below(begun, "encoder.net.")
    want = {k: v for k, v in teacher.items() if not k.startswith("fc.")}
    want["conv1.weight"] = want["conv1.weight"].sum(1, keepdim=True)
    assert _same(got, want)
    moved = _below(stage.state("run"), "encoder.net.")
    assert not torch.equal(moved["conv1.weight"], got["conv1.weight"])


def _written(encoder: Encoder, file: Path, **config: Any) -> str:
    """A checkpoint as an objective writes it, without having trained."""
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    init_args = {"encoder": {"init_args": config}}
    torch.save({"state_dict": state, "objective_config": {"init_args": init_args}}, file)
    return str(file)


def test_an_encoder_for_another_image_size_resamples_its_positions(
    stage: Stage, begun: dict[str, Tensor]
) -> None:
    large = Encoder("test_vit", image_size=64)
    file = _written(large, stage.folder / "large.ckpt")
    small = (f"{ENCODER}name", "test_vit", f"{ENCODER}image_size", "32")
    said = stage.fit("run", *small, "--init_from", file)
    assert "left aside: none; pos_embed resampled from 4x4 to 2x2 patches" in said
    got, own = _below(begun, "encoder."), large.state_dict()
    assert {k for k in own if not torch.equal(got[k], own[k])} == {"net.pos_embed"}


def test_what_does_not_fit_ends_in_one_line_before_the_first_step(stage: Stage) -> None:
    other = _written(Encoder("test_vit", image_size=32), stage.folder / "a.ckpt", name="test_vit")
    line = stage.refuse("run", "--init_from", other)
    assert f"init_from: {other} fits 0 of 90 tensors; " in line
    assert line.endswith("; its encoder was name=test_vit")

    torn = stage.folder / "torn.ckpt"
    torn.write_bytes(Path(other).read_bytes()[:-4000])
    assert f"init_from: {torn} is not readable as weights" in stage.refuse(
        "run", "--init_from", str(torn)
    )

    state = torch.load(other, weights_only=True)["state_dict"]
    del state["encoder.net.norm.weight"]
    torch.save({"state_dict": state}, other)
    vit = (f"{ENCODER}name", "test_vit", f"{ENCODER}image_size", "32")
    assert "; 1 missing: norm.weight" in stage.refuse("run", *vit, "--init_from", other)
    assert "'gone.pt' is neither a file nor a checkpoint folder" in stage.refuse(
        "run", "--init_from", "gone.pt"
    )


def test_one_start_at_a_time(stage: Stage) -> None:
    own = _written(Encoder("test_resnet"), stage.folder / "own.ckpt")
    both = stage.refuse("run", "--init_from", own, "--ckpt_path", "last")
    assert "--init_from starts a run and --ckpt_path goes on" in both
    twice = stage.refuse("run", "--init_from", own, f"{ENCODER}init_from", "other.pt")
    assert "init_args.init_from=other.pt already" in twice
    stage.fit("same", "--init_from", own, f"{ENCODER}init_from", own)


def test_a_first_run_that_asks_to_go_on_still_starts_from_its_file(
    stage: Stage, begun: dict[str, Tensor]
) -> None:
    """Batch scripts always say `--ckpt_path last`; the first time there is none."""
    encoder = Encoder("test_resnet")
    file = _written(encoder, stage.folder / "own.ckpt")
    said = stage.fit("run", f"{ENCODER}init_from", file, "--ckpt_path", "last")
    assert "beginning anew" in said
    assert _same(_below(begun, "encoder."), dict(encoder.state_dict()))
