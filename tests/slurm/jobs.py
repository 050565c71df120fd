"""Submits the scripts of slurm/ to the test's cluster and looks at what becomes of them."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import torch
import yaml

from lightning_rad.checkpoints import newest, read
from tests.configs.test_stacks import CONFIGS, stack
from tests.slurm.cluster import Cluster, until

SCRIPTS = Path(__file__).parents[2] / "slurm"
PATIENCE = 240.0  # seconds; starting two Pythons takes ten on two idle cores
STEPS = 100
SAVE_EVERY = 5


class Job:
    """One job of the cluster."""

    def __init__(self, cluster: Cluster, number: str) -> None:
        self.cluster, self.number = cluster, number

    def show(self, key: str) -> str:
        """One field of `scontrol show job`: JobState, Reason, Restarts, NodeList ..."""
        shown = self.cluster.run("scontrol", "show", "job", "--oneliner", self.number)
        fields = (word.partition("=") for word in shown.split())
        return next((value for name, _, value in fields if name == key), "")

    def signal(self, *how: str) -> None:
        """scancel, which only sends a signal where `--signal` names one."""
        self.cluster.run("scancel", *how, self.number)

    def until(self, *states: str, seconds: float = PATIENCE) -> None:
        """Wait for one of some states."""
        until(lambda: self.show("JobState") in states, f"job {self.number} is {states}", seconds)

    def ends(self, *states: str, seconds: float = PATIENCE) -> str:
        """The state that it ends in, once it is over; what it waits for is no state of an end."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")
        self.until(*over, seconds=seconds)
        state = self.show("JobState")
        assert state in (states or ("COMPLETED",)), f"{state}:\n{self.output}"
        return state

    def comes_back(self, seconds: float = PATIENCE) -> None:
        """Wait until it is requeued, and let it start without the two minutes that Slurm waits."""
        until(lambda: self.show("Reason") == "BeginTime", f"{self.number} is requeued", seconds)
        time.sleep(3)  # sooner than 2 s the credential of the former start is still revoked
        self.cluster.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")
        self.until("RUNNING", seconds=30)

    @property
    def output(self) -> str:
        file = Path(self.show("StdOut"))
        return file.read_text() if file.exists() else ""


class Jobs:
    """sbatch, with the arguments that train a tiny encoder on a CPU of each of two nodes."""

    def __init__(self, cluster: Cluster, folder: Path, shards: Path) -> None:
        self.cluster, self.folder, self.shards = cluster, folder, shards
        self._numbers = iter(range(1000))
        view = yaml.safe_load((CONFIGS / "view/two_view_small.yaml").read_text())
        for part in (*view["data"]["views"], view["data"]["evaluation"]["view"]):
            part["init_args"]["size"] = 32
        strategy = {"class_path": "lightning_rad.training.strategies.DDP"}
        csv_of_all_steps = {
            "class_path": "lightning_rad.training.loggers.RunCSV",
            "init_args": {"flush_logs_every_n_steps": 1},
        }
        trainer = {"trainer": {"strategy": strategy, "logger": [csv_of_all_steps]}}
        (folder / "small.yaml").write_text(yaml.safe_dump(view | trainer))

    @property
    def arguments(self) -> list[str]:
        """What `lightning-rad fit` is told, but for its --run and --data.manifest."""
        return [
            *stack(),
            *("-c", str(self.folder / "small.yaml")),
            *("--data.global_batch", "16"),
            *("--data.loading.threads", "1"),
            *("--model.init_args.encoder.init_args.name", "test_resnet"),
            *("--trainer.precision", "32-true"),
            *("--trainer.max_epochs", "-1"),
            *("--trainer.max_steps", str(STEPS)),
            *("--trainer.limit_val_batches", "0"),
            *("--trainer.log_every_n_steps", "1"),
            *("--trainer.enable_progress_bar", "false"),
            *("--trainer.enable_model_summary", "false"),
            *("--checkpoint.every_n_train_steps", str(SAVE_EVERY)),
            *("--probe.bootstrap.samples", "20"),
        ]

    def submit(self, script: str, options: list[str], arguments: list[str], **env: str) -> Job:
        """sbatch OPTIONS script ARGUMENTS, from a folder of the job's own."""
        home = self.folder / f"job-{next(self._numbers)}"
        home.mkdir()
        command = ["sbatch", "--parsable", f"--output={home}/%A_%a.out", *options]
        number = self.cluster.run(*command, str(SCRIPTS / script), *arguments, env=env, cwd=home)
        return Job(self.cluster, number)

    def pretrain(self, run: Path, *options: str, more: tuple[str, ...] = (), **env: str) -> Job:
        """Pretraining on two nodes, a rank each."""
        data = ["--data.manifest", str(self.shards), "--run", str(run)]
        layout = ["--nodes=2", "--ntasks-per-node=1", *options]
        return self.submit("pretrain.sbatch", layout, [*self.arguments, *data, *more], **env)


def environment() -> dict[str, str]:
    """What jobs inherit from sbatch: this Python by its path alone, and the system's programs."""
    scripts = {"LIGHTNING_RAD_SLURM": str(SCRIPTS), "PYTHON": sys.executable}
    return scripts | {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "OMP_NUM_THREADS": "1"}


def repeated(run: Path) -> int:
    """How many steps a run took twice; that none is missing is asserted."""
    with (run / "metrics.csv").open(newline="") as lines:
        rows = [int(row["step"]) for row in csv.DictReader(lines) if row.get("train/nt_xent")]
    assert sorted(set(rows)) == list(range(STEPS))
    return len(rows) - STEPS


def under_way(run: Path, seconds: float = PATIENCE) -> None:
    """Wait until a run has a checkpoint or two and much before it."""
    folders = run / "checkpoints"
    until(
        lambda: len(list(folders.glob("step-????????/contents.json"))) > 1, f"{run} saves", seconds
    )


def ends(run: Path) -> dict[str, object]:
    """All that training left behind, tensors and plain values by their path.

    But for clocks (callbacks), the folder of the shards, and Lightning's count of epochs begun,
    which leaves one out where a stop fell on the last step of an epoch.
    """
    folder = newest(run / "checkpoints")
    assert folder is not None
    aside = (
        "callbacks",
        "loops.fit_loop.epoch_progress",
        "RadiographData.identity.data.manifest",
    )
    return {key: value for key, value in _leaves(read(folder)) if not key.startswith(aside)}


def assert_same_end(run: Path, other: Path) -> None:
    """Weights, optimiser state, loops and the position in the stream are equal, bit for bit."""
    first, second = ends(run), ends(other)
    assert first["global_step"] == STEPS
    assert first.keys() == second.keys()
    tensors = [key for key, value in first.items() if isinstance(value, torch.Tensor)]
    assert any(key.startswith("optimizer_states") for key in tensors)
    differing = [key for key in first if not _equal(first[key], second[key])]
    assert differing == []


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def _leaves(tree: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(tree, dict):
        pairs = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        pairs = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return [(path, tree)]
    below = (_leaves(value, f"{path}.{key}" if path else key) for key, value in pairs)
    return [leaf for leaves in below for leaf in leaves]
