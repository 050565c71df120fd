"""What launchers say: where ranks meet, whether Slurm's variables fit together."""

from __future__ import annotations

import pytest

from lightning_rad.training.doctor.finding import worst
from lightning_rad.training.doctor.launch import Place, master, place, slurm

STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_JOB_NAME": "moco",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_NTASKS": "16",
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_GPUS_ON_NODE": "8",
}
ONE_A_NODE = STEP | {
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
}


def test_a_step_of_slurm_meets_at_its_first_node() -> None:
    assert place(STEP) == Place(3, 16, 2, 8, "gpu07", 15000 + 4567)
    named = STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert place(named) == Place(3, 16, 2, 8, "10.0.0.1", 29500)


def test_torchrun_says_it_itself_also_within_a_step_of_slurm() -> None:
    torchrun = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "1234",
    }
    assert place(torchrun) == place(STEP | torchrun) == Place(5, 8, 2, 4, "n1", 1234)


def test_one_process_meets_nobody() -> None:
    assert place({}) is None
    assert place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}) is None  # in sbatch, before srun
    alone = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "1"}
    assert place(alone) is None


@pytest.mark.parametrize(
    ("environment", "devices", "gpus"),
    [(STEP, 8, 8), (STEP, None, 8), (ONE_A_NODE, 8, 8), (ONE_A_NODE, None, 8)],
)
def test_a_task_a_gpu_and_a_task_a_node_are_well(
    environment: dict[str, str], devices: int | None, gpus: int
) -> None:
    [finding] = slurm(environment, devices, gpus)
    assert finding.level == "ok"
    assert "1234567" in finding.value


@pytest.mark.parametrize(
    ("changes", "devices", "gpus", "level", "says"),
    [
        ({}, 4, 8, "failed", "--ntasks-per-node=4"),
        ({"SLURM_STEP_NUM_TASKS": "15"}, 8, 8, "failed", "each node needs as many"),
        ({"SLURM_JOB_NAME": "bash"}, 8, 8, "warning", "sbatch -J NAME"),
        ({}, 8, 1, "failed", "--gpus-per-node, not --gpus-per-task"),
        ({"SLURM_NTASKS_PER_NODE": None}, 8, 8, "warning", "Lightning refuses it"),
    ],
)
def test_what_does_not_fit_is_told(
    changes: dict[str, str | None], devices: int, gpus: int, level: str, says: str
) -> None:
    environment = {k: v for k, v in (STEP | changes).items() if v is not None}
    findings = slurm(environment, devices, gpus)
    assert worst(findings) == level
    assert any(says in f.remedy for f in findings)


def test_outside_slurm_nothing_is_said_of_it() -> None:
    assert slurm({}, 8, 8) == []


def _unknown(name: str) -> list[str]:
    raise OSError(-2, "Name or service not known")


def test_a_master_without_an_address_fails_and_one_of_every_machine_is_warned_of() -> None:
    assert master("node1", 2, _unknown).level == "failed"
    assert "Name or service not known" in master("node1", 2, _unknown).value
    on_itself = master("node1", 2, lambda _: ["127.0.1.1", "::1"])
    assert on_itself.level == "warning"
    assert "on itself" in on_itself.remedy
    assert master("node1", 1, lambda _: ["127.0.1.1"]).level == "ok"
    assert master("node1", 2, lambda _: ["10.0.0.1", "fe80::1%eth0"]).level == "ok"


def test_a_real_name_that_nobody_has_fails() -> None:
    assert master("no-such-machine.invalid", 1).level == "failed"
    assert master("localhost", 1).level == "ok"
