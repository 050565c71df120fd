"""The built image: who runs in it, what it can do, and how a run in it ends and goes on."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_rad.checkpoints import newest
from tests.docker.ends import assert_same_end, last
from tests.docker.engine import Engine
from tests.docker.watching import ended, said, state, trains, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

USER = 10001
STRICT = ("--read-only", "--tmpfs", "/tmp:exec,mode=1777", "--network=none")
ALONE = ("-e", "GLOO_SOCKET_IFNAME=lo", "-e", "OMP_NUM_THREADS=1")
CONFIGS = (
    "base",
    "objective/simclr_small",
    "view/two_view_small",
    "data/demo",
    "scale/cpu",
)
FIT = (
    "fit",
    *(part for name in CONFIGS for part in ("-c", f"configs/{name}.yaml")),
    *("--data.manifest", "/runs/shards", "--data.global_batch", "16", "--ckpt_path", "last"),
    *("--trainer.limit_val_batches", "0", "--trainer.max_epochs", "8"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
)
TWO_RANKS = (*FIT, "--trainer.devices", "2")


@pytest.fixture(scope="module")
def runs(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the image's user owns, with shards that the image made."""
    folder = tmp_path_factory.mktemp("runs")
    os.chown(folder, USER, USER)
    made = ("shards", "synthesize", "/runs/shards", "--patients", "60", "--size", "32")
    engine("run", "--rm", *STRICT, "-v", f"{folder}:/runs", image, *made, "--seed", "1")
    return folder


@pytest.fixture(scope="module")
def undisturbed(engine: Engine, image: str, runs: Path) -> Path:
    """The folder of a run of two ranks that nothing happened to."""
    whole = ("run", "--rm", *STRICT, *ALONE, "-v", f"{runs}:/runs", image, *TWO_RANKS)
    engine(*whole, "--run", "/runs/undisturbed", timeout=300)
    return runs / "undisturbed"


@pytest.fixture
def start(
    engine: Engine, image: str, runs: Path, container: Callable[[], str]
) -> Callable[..., str]:
    """Start a container in the background; its name."""

    def begin(*command: str, options: Sequence[str] = STRICT, image_options: Any = ()) -> str:
        name = container()
        volume = ("-v", f"{runs}:/runs")
        engine(
            *("run", "--detach", "--name", name, *options, *ALONE, *volume, *image_options),
            *(image, *command),
        )
        return name

    return begin


def test_it_is_not_root_and_tells_what_it_is(engine: Engine, image: str) -> None:
    told = json.loads(engine("image", "inspect", image).stdout)[0]
    config = told["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Entrypoint"][-1] == "lightning-rad"
    assert "org.opencontainers.image.revision" in config["Labels"]
    health = config.get("Healthcheck") or told["Healthcheck"]  # podman keeps it elsewhere
    assert any("health.py" in part for part in health["Test"])


def test_its_user_can_write_nowhere_but_in_runs_and_tmp(engine: Engine, image: str) -> None:
    look = "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' ! -path '/tmp*'"
    shell = ("run", "--rm", "--network=none", "--entrypoint", "sh", image, "-c")
    found = engine(*shell, f"id -u; {look} 2>/dev/null; true").stdout.split()
    ours = [p for p in found[1:] if p not in ("/runs", "/var/tmp", "/run/lock")]
    assert found[0] == str(USER)
    assert ours == []


def test_no_secret_of_the_build_is_left(engine: Engine, image: str) -> None:
    shell = ("run", "--rm", "--network=none", "--entrypoint", "sh", image, "-c")
    left = engine(*shell, "ls -A /run/secrets /etc/pip.conf /build 2>/dev/null; true").stdout
    assert left.split() == []


def test_any_user_gets_help_on_a_read_only_root(engine: Engine, image: str) -> None:
    told = engine("run", "--rm", "--user", "4321:4321", *STRICT, image).stdout
    assert "fit" in told


def test_any_user_can_compile_while_a_run_starts(engine: Engine, image: str) -> None:
    """torch.compile calls g++; Triton gcc, with the headers of Python."""
    code = """
import sysconfig, subprocess, tempfile, torch
f = torch.compile(lambda x: (x * 2 + 1).relu().sum())
x = torch.arange(8.0)
assert f(x).item() == (x * 2 + 1).sum().item()
with tempfile.TemporaryDirectory() as folder:
    open(f"{folder}/stub.c", "w").write("#include <Python.h>\\n")
    include = sysconfig.get_paths(scheme="posix_prefix")["include"]
    subprocess.run(["gcc", "-shared", "-fPIC", f"{folder}/stub.c", f"-I{include}", "-o",
                    f"{folder}/stub.so"], check=True)
print("compiled")
"""
    options = ("--user", "4321:4321", *STRICT, "--entrypoint", "python")
    assert "compiled" in engine("run", "--rm", *options, image, "-c", code, timeout=300).stdout


def test_docker_stop_saves_and_the_same_command_ends_where_an_undisturbed_run_does(
    engine: Engine, start: Callable[..., str], runs: Path, undisturbed: Path, fault: Any
) -> None:
    name = start(*TWO_RANKS, "--run", "/runs/stopped")
    until(trains(engine, name), "the first batch")
    health = engine("exec", name, "python", "/opt/lightning-rad/health.py")
    assert "since the last batch" in health.stdout
    begun = time.monotonic()
    engine("stop", "--time", "100", name, timeout=150)
    seconds = time.monotonic() - begun
    assert state(engine, name)["ExitCode"] == 85, said(engine, name)
    stopped = re.search(r"stopped at step (\d+) after SIGTERM", said(engine, name))
    assert stopped
    saved = newest(runs / "stopped" / "checkpoints")
    assert saved is not None
    assert saved.name == f"step-{int(stopped[1]):08d}"
    assert int(stopped[1]) < last(undisturbed)["global_step"]
    again = start(*TWO_RANKS, "--run", "/runs/stopped")
    assert ended(engine, again, 300) == 0, said(engine, again)
    assert_same_end(runs / "stopped", undisturbed)
    fault(
        "`docker stop` of a container with two ranks, read-only root",
        injected=f"SIGTERM to PID 1 at step {stopped[1]}",
        outcome=f"checkpoint, exit status 85 after {seconds:.0f} s; the same command went on",
        lost=0,
    )


def test_a_killed_rank_ends_its_container(
    engine: Engine, start: Callable[..., str], undisturbed: Path, runs: Path, fault: Any
) -> None:
    every = ("--checkpoint.every_n_train_steps", "2")
    name = start(*TWO_RANKS, *every, "--run", "/runs/killed")
    until(trains(engine, name), "the first batch")
    saved = runs / "killed" / "checkpoints"
    until(lambda: saved.is_dir() and newest(saved) is not None, "the first checkpoint")
    find = "grep -lz '^LOCAL_RANK=1$' /proc/[0-9]*/environ 2>/dev/null | head -1"
    engine("exec", name, "sh", "-c", f'kill -9 "$({find} | cut -d/ -f3)"')
    begun = time.monotonic()
    status = ended(engine, name, 60)
    seconds = time.monotonic() - begun
    assert status not in (0, 85), said(engine, name)
    words = re.search(r"local rank 1 on|lost another rank", said(engine, name))
    assert words, said(engine, name)
    step = last(runs / "killed")["global_step"]
    again = start(*TWO_RANKS, *every, "--run", "/runs/killed")
    assert ended(engine, again, 300) == 0, said(engine, again)
    assert_same_end(runs / "killed", undisturbed)
    fault(
        "a rank in a container is killed",
        injected="SIGKILL of rank 1 of 2",
        outcome=f"told (`{words[0]} ...`); ended with {status} after {seconds:.0f} s; "
        f"the same command went on from step {step}",
        lost="since the checkpoint, taken every 2",
    )


@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_boxes_without_slurm_stop_together(
    engine: Engine, start: Callable[..., str], runs: Path, launcher: str, fault: Any
) -> None:
    """Two containers on the host's network, one rank each, as docs/docker.md has them."""
    port = str(20000 + os.getpid() % 10000)
    folder = f"/runs/boxes-{launcher}"
    fit = (*FIT, "--run", folder, "--trainer.devices", "1", "--trainer.num_nodes", "2")
    options = (*STRICT[:-1], "--network=host")
    names = []
    for box in range(2):
        if launcher == "lightning":
            names.append(
                start(
                    *fit,
                    options=options,
                    image_options=(
                        *("-e", f"NODE_RANK={box}", "-e", "MASTER_ADDR=127.0.0.1"),
                        *("-e", f"MASTER_PORT={port}"),
                    ),
                )
            )
        else:
            rendezvous = (
                *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", f"127.0.0.{box + 1}"),
                *("--rdzv-id", "test", "--shutdown-timeout", "240"),
            )
            names.append(
                start(
                    *("-g", "--", "torchrun", *rendezvous, "-m", "--", "lightning_rad", *fit),
                    options=options,
                    image_options=("--entrypoint", "tini"),
                )
            )
    until(trains(engine, names[0]), "the first batch")
    engine("stop", "--time", "100", names[0], timeout=150)
    statuses = [ended(engine, name) for name in names]
    told = "\n".join(said(engine, name) for name in names)
    stopped = re.search(r"stopped at step (\d+) after SIGTERM", told)
    assert stopped, told
    saved = newest(runs / f"boxes-{launcher}" / "checkpoints")
    assert saved is not None
    assert saved.name == f"step-{int(stopped[1]):08d}"
    assert statuses == [85, 85] if launcher == "lightning" else all(statuses), told
    fault(
        f"`docker stop` of one of two boxes without Slurm ({launcher})",
        injected=f"SIGTERM to PID 1 of one container at step {stopped[1]}",
        outcome=f"both saved and ended, exit statuses {statuses[0]} and {statuses[1]}",
        lost=0,
        identical="not compared: shown for one box",
    )


def test_stopping_shards_ends_at_once(engine: Engine, start: Callable[..., str]) -> None:
    """PID 1 without a handler would ignore SIGTERM until it is killed."""
    name = start("shards", "synthesize", "/runs/many", "--patients", "5000", "--size", "256")
    until(lambda: "building" in said(engine, name), "the first patients")
    begun = time.monotonic()
    try:
        engine("stop", "--time", "30", name, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail(said(engine, name))
    assert time.monotonic() - begun < 15
    assert state(engine, name)["ExitCode"] != 137
