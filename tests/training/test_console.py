"""The log reaches the user once and on one rank; an error is what the class said."""

import logging
import os
import warnings
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only

from lightning_rad.training.console import Bar, reason, told

log = logging.getLogger("lightning_rad.nn.pretrained")


@pytest.mark.parametrize(("rank", "heard"), [(0, "a count\na warning\n"), (1, "a warning\n")])
def test_counts_are_told_on_rank_0_and_warnings_on_all(
    rank: int, heard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
    for _ in range(2):  # a second command in one process says nothing twice
        with told():
            log.info("a count")
            log.warning("a warning")
        assert capsys.readouterr().err == heard
    log.info("outside")
    assert capsys.readouterr().err == ""


def test_lightning_does_not_advertise(capsys: pytest.CaptureFixture[str]) -> None:
    lightning = logging.getLogger("pytorch_lightning")
    handler, before = logging.StreamHandler(), lightning.level
    lightning.addHandler(handler)
    lightning.setLevel(logging.INFO)
    try:
        with told():
            Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    finally:
        lightning.removeHandler(handler)
        lightning.setLevel(before)
    said = capsys.readouterr().err
    assert "GPU available" in said  # what the run is on is of interest
    assert "TPU" not in said
    assert "Tip" not in said


@pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_ID": "7"}], ids=["outside", "in a job"])
def test_srun_is_recommended_to_those_in_a_job_alone(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with told(environ):
            SLURMEnvironment()
    assert len(said) == len(environ)


@pytest.mark.parametrize(("epochs", "described"), [(-1, "Epoch 9"), (10, "Epoch 9/9")])
def test_the_bar_has_no_last_epoch_where_there_is_none(epochs: int, described: str) -> None:
    [bar] = Bar.instead(None, [])
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[bar],
        max_epochs=epochs,
        enable_model_summary=False,
    )
    bar._trainer = trainer
    assert bar._get_train_description(9).strip() == described


def test_a_bar_that_the_user_gave_or_wants_none_of_is_left() -> None:
    assert Bar.instead(False, []) == []
    assert Bar.instead(None, [TQDMProgressBar()]) == []


class Inner:
    def __init__(self, size: int = 1) -> None:
        raise ValueError(f"size: {size} is - not good: see 'x'")


class Outer:
    def __init__(self, inner: Inner | None = None) -> None: ...


@pytest.mark.parametrize("key", ["inner", "outer.inner"])
def test_an_error_of_an_optional_class_is_the_classes_own_line(key: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    name = key.partition(".")[0]
    parser.add_argument(f"--{name}", type={"inner": Inner, "outer": Outer}[name] | None)
    made = {"class_path": f"{__name__}.Inner", "init_args": {"size": 3}}
    config = made
    if "." in key:
        config = {"class_path": f"{__name__}.Outer", "init_args": {"inner": made}}
    with pytest.raises(ValueError, match="not good") as said:
        parser.instantiate(parser.parse_object({name: config}))
    assert "\n" in str(said.value)
    assert reason(str(said.value)) == "size: 3 is - not good: see 'x'"


def test_any_other_error_is_left_as_it_is() -> None:
    assert reason("two\nlines") == "two\nlines"
