"""What Slurm or torchrun started is compared with what the run was told, before anything begins."""

import pytest

from lightning_rad.training.layout import check_layout


def step(tasks: int, nodes: int, **more: str) -> dict[str, str]:
    """The variables of a task that `srun --ntasks-per-node` started."""
    numbers = {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(nodes)}
    per_node = {"SLURM_NTASKS_PER_NODE": str(tasks // nodes), "SLURM_JOB_NAME": "pretrain"}
    return numbers | per_node | more


def elastic(ranks: int, nodes: int) -> dict[str, str]:
    sizes = {"LOCAL_WORLD_SIZE": str(ranks), "WORLD_SIZE": str(ranks * nodes)}
    return {"TORCHELASTIC_RUN_ID": "none"} | sizes


@pytest.mark.parametrize(
    ("devices", "num_nodes", "environ"),
    [
        (8, 4, step(32, 4)),
        ("8", 4, step(32, 4)),
        ([0, 1], 2, step(4, 2)),
        ("0,1", 2, step(4, 2)),
        ("auto", 2, step(2, 2)),
        (1, 1, step(1, 1)),
        (4, 2, elastic(4, 2)),
        (4, 2, step(2, 2) | elastic(4, 2)),  # torchrun under srun: its agents are srun's tasks
        (8, 4, {}),  # neither: Lightning starts the ranks
        (2, 1, step(1, 1, SLURM_JOB_NAME="bash")),  # srun --pty bash: likewise
        (2, 1, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "interactive"}),  # salloc: likewise
        (1, 1, {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x"}),
    ],
)
def test_what_agrees_passes(devices: object, num_nodes: int, environ: dict[str, str]) -> None:
    check_layout(devices, num_nodes, "cpu", environ)


@pytest.mark.parametrize(
    ("devices", "num_nodes", "environ", "said"),
    [
        (8, 4, step(16, 4), "trainer.devices is 8, but srun --ntasks-per-node is 4"),
        (8, 1, step(32, 4), "trainer.num_nodes is 1, but srun --nodes is 4"),
        ("0,1", 1, step(1, 1), "trainer.devices is 2, but srun --ntasks-per-node is 1"),
        ("auto", 2, step(4, 2), "trainer.devices is 1, but srun --ntasks-per-node is 2"),
        (4, 2, elastic(8, 2), "trainer.devices is 4, but torchrun --nproc-per-node is 8"),
        (8, 1, elastic(8, 2), "trainer.num_nodes is 1, but torchrun --nnodes is 2"),
        (2, 2, step(3, 2), "srun started 3 tasks on 2 nodes"),
        (2, 1, step(2, 1, SLURM_JOB_NAME="bash"), "the job's name is bash"),
        (2, 1, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "x"}, "--ntasks 2 and trainer.devices is 2"),
        (2, 1, {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x"}, "--ntasks 1 and trainer.devices is 2"),
    ],
)
def test_what_does_not_is_refused_by_both_names(
    devices: object, num_nodes: int, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_layout(devices, num_nodes, "cpu", environ)


def test_tasks_without_their_number_a_node_are_refused() -> None:
    environ = step(2, 2)
    del environ["SLURM_NTASKS_PER_NODE"]
    with pytest.raises(ValueError, match="give --nodes and --ntasks-per-node"):
        check_layout(1, 2, "cpu", environ)
