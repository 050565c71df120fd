"""Ranks and folder that a run is told of are there as it is told, or nothing begins.

The ranks are the tasks that its launcher started. A mismatch otherwise waits half an hour for ranks
that nobody started, or trains the same model several times side by side (Lightning's issues 10150,
18650, 19883, 20391).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

_NOT_SLURM = ("bash", "interactive")  # names of jobs that Lightning takes for a shell of a user's


def check_layout(
    devices: Any, num_nodes: int, accelerator: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Compare trainer.devices and trainer.num_nodes with what srun or torchrun started.

    Outside of both, and in a shell that srun started, Lightning starts the ranks itself.

    Raises:
        ValueError: naming the key and Slurm's (or torchrun's) option, each with its value.
    """
    ranks = _count(devices, accelerator)
    if "TORCHELASTIC_RUN_ID" in environ:
        local = int(environ["LOCAL_WORLD_SIZE"])
        nodes = int(environ["WORLD_SIZE"]) // local
        _compare("trainer.devices", ranks, "torchrun --nproc-per-node", local)
        _compare("trainer.num_nodes", num_nodes, "torchrun --nnodes", nodes)
        return
    named = environ.get("SLURM_JOB_NAME", "")
    if "SLURM_STEP_NUM_TASKS" not in environ:
        asked = environ.get("SLURM_NTASKS")  # of a batch script; Lightning takes it for srun's
        alone = asked is None or (int(asked), ranks * num_nodes) == (1, 1)
        if not alone and named not in _NOT_SLURM:
            raise ValueError(
                f"the job has --ntasks {asked} and trainer.devices is {ranks}, but this process "
                "was started without srun: srun lightning-rad ..., or slurm/pretrain.sbatch"
            )
        return
    tasks = int(environ["SLURM_STEP_NUM_TASKS"])
    nodes = int(environ["SLURM_STEP_NUM_NODES"])
    if named in _NOT_SLURM:
        if tasks > 1:
            raise ValueError(
                f"the job's name is {named}, by which Lightning takes each of srun's {tasks} tasks "
                "for a run of its own: srun --job-name=pretrain ..."
            )
        return
    if tasks % nodes or (tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ):
        raise ValueError(
            f"srun started {tasks} tasks on {nodes} nodes: give --nodes and --ntasks-per-node, "
            f"the latter as trainer.devices, which is {ranks}"
        )
    _compare("trainer.devices", ranks, "srun --ntasks-per-node", tasks // nodes)
    _compare("trainer.num_nodes", num_nodes, "srun --nodes", nodes)


def check_folder(run: str) -> None:
    """Refuse a run's folder that will not be written, before anything is built.

    Raises:
        ValueError: naming it, and what is in the way.
    """
    folder = Path(run).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"--run {run}: {there} cannot be written: {error.strerror}") from None


def _compare(key: str, told: int, option: str, started: int) -> None:
    if told != started:
        raise ValueError(f"{key} is {told}, but {option} is {started}: give both the same number")


def _count(devices: Any, accelerator: str) -> int:
    """How many ranks a node `trainer.devices` means; "auto" and -1 are all there are."""
    if isinstance(devices, (list, tuple)):
        return len(devices)
    words = [word for word in str(devices).split(",") if word.strip()]
    if len(words) > 1 or str(devices).endswith(","):
        return len(words)
    if str(devices) in ("auto", "-1"):
        return 1 if accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)
