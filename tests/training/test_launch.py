"""One command of two ranks: signals, deaths and errors of any of them end all, each in its way."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback

from lightning_rad.checkpoints import newest, read
from tests.configs.test_stacks import stack
from tests.processes import ROOT, Command

pytestmark = pytest.mark.slow
Fit = Callable[..., Command]
HOST = socket.gethostname()


class Wrong(Callback):
    """Raises on rank 1 at the third step."""

    def on_before_backward(self, trainer: Any, *args: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise ValueError("a value that is wrong")


@pytest.fixture
def fit(tmp_path: Path, tiny_shards: Path) -> Fit:
    """Starts `fit` on 2 ranks into tmp_path/NAME with the pace given."""
    view = yaml.safe_load((ROOT / "configs/view/two_view_small.yaml").read_text())
    for part in (*view["data"]["views"], view["data"]["evaluation"]["view"]):
        part["init_args"]["size"] = 32
    (tmp_path / "view.yaml").write_text(yaml.safe_dump(view))

    def start(name: str, *arguments: str, ranks: int = 2, **pace: Any) -> Command:
        callback = {"class_path": "tests.processes.Pace", "init_args": pace}
        (tmp_path / "pace.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
        return Command(
            tmp_path / name,
            *("fit", *stack(), "-c", str(tmp_path / "view.yaml")),
            *("-c", str(tmp_path / "pace.yaml")),
            *("--run", str(tmp_path / name)),
            *("--data.manifest", str(tiny_shards), "--data.global_batch", "16"),
            *("--data.loading.threads", "1", "--data.evaluation.batch", "4"),
            *("--model.init_args.encoder.init_args.name", "test_resnet"),
            *("--trainer.precision", "32-true", "--trainer.devices", str(ranks)),
            *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
            *("--trainer.log_every_n_steps", "1", "--probe.bootstrap.samples", "20"),
            *("--checkpoint.every_n_train_steps", "1000"),
            *("--trainer.max_epochs", "-1", "--trainer.max_steps", "12"),
            *arguments,
        )

    return start


def weights(run: Path) -> dict[str, Any]:
    found = newest(run / "checkpoints")
    assert found is not None
    return dict(read(found)["state_dict"])


def step_of(run: Path) -> int:
    found = newest(run / "checkpoints")
    return -1 if found is None else int(read(found)["global_step"])


def test_sigterm_to_the_first_process_stops_all_and_the_same_command_goes_on(
    fit: Fit, tmp_path: Path, fault: Callable[..., None]
) -> None:
    with fit("whole") as run:
        assert run.end() == 0, run.said
    with fit("cut", seconds=[0.1, 0.4]) as run:
        run.reach("train 3")
        run.signal(signal.SIGTERM)
        assert run.end() == 85, run.said
    step = step_of(tmp_path / "cut")
    said = f"stopped at step {step} after SIGTERM; the same command with --ckpt_path last goes on"
    assert run.said.count(said) == 1
    assert "Traceback" not in run.said
    with fit("cut", "--ckpt_path", "last") as run:
        assert run.end() == 0, run.said
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [(tmp_path / name / "metrics.csv").read_text().count("\n") for name in ("whole", "cut")]
    assert rows[0] == rows[1]
    fault(
        "SIGTERM to the process that started the others",
        injected="kill, one command of two ranks, in step 3",
        outcome=f"all ranks stop at {step}, exit 85; the same command goes on in the same folder",
        lost=0,
    )


def test_ctrl_c_reaches_all_and_saves_and_the_second_ends_at_once(
    fit: Fit, tmp_path: Path, fault: Callable[..., None]
) -> None:
    with fit("once", seconds=[0.1, 0.3]) as run:
        run.reach("train 2")
        run.signal_all(signal.SIGINT)
        assert run.end() == 130, run.said
    assert "after Ctrl-C" in run.said
    assert step_of(tmp_path / "once") > 2
    with fit("twice", seconds=[2.0, 2.0]) as run:
        run.reach("train 2")
        run.signal_all(signal.SIGINT)
        time.sleep(0.3)
        run.signal_all(signal.SIGINT)
        begun = time.monotonic()
        assert run.end() == 130, run.said
    took = time.monotonic() - begun
    assert took < 10
    assert step_of(tmp_path / "twice") == -1
    fault(
        "Ctrl-C twice",
        injected="SIGINT to the process group, 0.3 s apart",
        outcome=f"all gone after {took:.0f} s, exit 130, nothing saved",
        lost="since the last checkpoint",
        identical="-",
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)])
def test_a_signal_while_the_ranks_are_still_to_meet_ends_all_quietly(
    fit: Fit, tmp_path: Path, number: signal.Signals, status: int, fault: Callable[..., None]
) -> None:
    """The other rank imports Python; the first waits for it where no Python runs."""
    with fit("early") as run:
        deadline = time.monotonic() + 60
        while not children(run.process.pid):
            assert time.monotonic() < deadline, run.said
            time.sleep(0.02)
        time.sleep(1)  # the first is at its store by now; imports take the other longer
        begun = time.monotonic()
        run.signal_all(number)
        assert run.end() == status, run.said
        took = time.monotonic() - begun
    assert took < 5
    assert "Child process" not in run.said
    assert "Traceback" not in run.said
    assert step_of(tmp_path / "early") == -1
    fault(
        f"{number.name} while the ranks are still starting",
        injected="kill of the process group, one command of two ranks that have not met",
        outcome=f"all gone after {took:.0f} s, exit {status}, nothing to save",
        lost="none: not begun",
        identical="-",
    )


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for file in listed for word in file.read_text().split()]


def test_a_stop_in_validation_measures_nothing_and_saves(fit: Fit, tmp_path: Path) -> None:
    short = ("--trainer.max_epochs", "3", "--trainer.max_steps", "-1")
    often = ("--trainer.check_val_every_n_epoch", "1")
    with fit("cut", *short, *often, in_validation=1.0) as run:
        run.reach("validation")
        run.signal(signal.SIGTERM)
        assert run.end() == 85, run.said
    assert "Traceback" not in run.said
    assert "linear" not in run.said
    assert step_of(tmp_path / "cut") > 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_takes_the_others_along(
    fit: Fit, tmp_path: Path, rank: int, fault: Callable[..., None]
) -> None:
    """Where the launcher dies, its child is asleep and talks to no one."""
    with fit("killed", seconds=[0.5, 300.0 if rank == 0 else 0.5]) as run:
        run.reach("train 0", rank=0)
        run.reach("train 0", rank=1)
        os.kill(run.pid(rank), signal.SIGKILL)
        begun = time.monotonic()
        status = run.end()
        took = time.monotonic() - begun
    assert took < 60
    assert status == (-signal.SIGKILL if rank == 0 else 1), run.said
    if rank == 1:
        assert f"local rank 1 on {HOST}: ended with signal SIGKILL" in run.said
        assert f"rank 0 on {HOST}: lost another rank at step" in run.said
        assert "Traceback" not in run.said
    fault(
        "SIGKILL of " + ("the process that started the other rank", "a rank")[rank],
        injected="kill -9, one command of two ranks",
        outcome=f"all gone after {took:.0f} s" + (", rank, host and signal named" if rank else ""),
        lost="since the last checkpoint",
        identical="-",
    )


def test_an_error_of_one_rank_is_told_with_its_rank_and_traceback(
    fit: Fit, tmp_path: Path, fault: Callable[..., None]
) -> None:
    extra = tmp_path / "wrong.yaml"
    wrong = {"class_path": "tests.training.test_launch.Wrong"}
    extra.write_text(yaml.safe_dump({"trainer": {"callbacks": [wrong]}}))
    with fit("wrong", "-c", str(extra)) as run:
        status = run.end()
    assert status == 1, run.said
    assert f"rank 1 on {HOST}: ValueError at step 2" in run.said
    assert run.said.count("Traceback") == 1
    assert "a value that is wrong" in run.said
    assert f"rank 0 on {HOST}: lost another rank at step 2" in run.said
    fault(
        "an exception on one of two ranks",
        injected="ValueError, rank 1, step 2",
        outcome="its traceback with rank and host, one line of the other; exit 1",
        lost="since the last checkpoint",
        identical="-",
    )
