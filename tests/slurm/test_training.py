"""Real training under a real Slurm: whatever happens, the end is that of the undisturbed run."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lightning_rad.checkpoints import newest, read_contents
from tests.slurm.cluster import Cluster, until
from tests.slurm.jobs import (
    SAVE_EVERY,
    Job,
    Jobs,
    assert_same_end,
    repeated,
    under_way,
)

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_job_of_two_nodes_trains_and_its_dependent_evaluates(
    jobs: Jobs, cluster: Cluster, undisturbed: Path
) -> None:
    run = jobs.folder / "evaluated"
    job = jobs.pretrain(run, "--time=30", more=("--trainer.max_steps", "3"))
    after = f"--dependency=afterok:{job.number}"
    arguments = ["--run", str(run), "--trainer.accelerator", "cpu"]
    evaluate = jobs.submit("evaluate.sbatch", [after], arguments)
    assert evaluate.show("Reason") == "Dependency"
    job.ends()
    logs = run / "logs" / job.number
    assert "2/2" in (logs / "rank-1.log").read_text()
    assert "finished" in (logs / "job.log").read_text()
    evaluate.ends()
    assert (run / "probe_val.json").read_text().strip() not in ("", "[]")
    assert_same_end(undisturbed, undisturbed)
    assert repeated(undisturbed) == 0


def test_a_preempted_job_is_requeued_and_ends_the_same(
    jobs: Jobs, undisturbed: Path, cluster: Cluster, fault: Callable[..., None]
) -> None:
    run = jobs.folder / "preempted"
    job = jobs.pretrain(run, "--partition=low")
    under_way(run)
    cluster.run("srun", "--partition=high", "--nodes=3", "--exclusive", "true")
    job.comes_back()
    job.ends()
    assert job.show("Restarts") == "1"
    assert "SIGTERM" in (run / "logs" / job.number / "rank-0.log").read_text()
    assert_same_end(run, undisturbed)
    fault(
        "preemption by a job of higher priority",
        injected="srun in a partition of a higher tier takes all nodes, no grace time",
        outcome="SIGTERM, saved at an agreed step, requeued by Slurm",
        lost=repeated(run),
    )


def test_a_signal_before_the_limit_under_torchrun_with_staged_shards(
    jobs: Jobs, undisturbed: Path, cluster: Cluster, fault: Callable[..., None]
) -> None:
    run = jobs.folder / "signalled"
    local = cluster.folder / "local"
    job = jobs.pretrain(run, LAUNCH="torchrun", STAGE_DIR=str(local))
    under_way(run)
    job.signal("--signal=USR1")
    job.comes_back()
    job.ends()
    log = (run / "logs" / job.number / "job.log").read_text()
    assert "requeued" in log
    assert "failure" not in log
    assert job.output.count("0 files copied") == 2  # a node each, after the requeue
    assert_same_end(run, undisturbed)
    fault(
        "SIGUSR1 to all ranks, torchrun, shards on node-local disks",
        injected="scancel --signal=USR1",
        outcome="saved, exit status 85 through the agents, requeued by the script, copies reused",
        lost=repeated(run),
    )


def test_a_time_limit_is_foreseen(jobs: Jobs, fault: Callable[..., None]) -> None:
    run = jobs.folder / "limited"
    endless = ("--trainer.max_steps", "1000000")
    job = jobs.pretrain(run, "--time=2", "--signal=SIGUSR1@30", more=endless)
    until(lambda: job.show("Reason") == "BeginTime", "the job is requeued", 300)
    log = (run / "logs" / job.number / "job.log").read_text()
    stopped = int(log.partition("stopped at step ")[2].partition(":")[0])
    saved = newest(run / "checkpoints")
    assert saved is not None
    lost = stopped - read_contents(saved).step
    assert lost == 0
    assert "SIGUSR1" in (run / "logs" / job.number / "rank-0.log").read_text()
    job.signal()
    fault(
        "time limit near",
        injected="--time=2 --signal=SIGUSR1@30, sent by Slurm",
        outcome="saved, requeued by the script before the limit",
        lost=lost,
        identical="not compared: see the row of scancel --signal=USR1",
    )


def test_a_dead_node_is_replaced(
    jobs: Jobs, undisturbed: Path, cluster: Cluster, fault: Callable[..., None]
) -> None:
    run = jobs.folder / "bereft"
    job = jobs.pretrain(run)
    under_way(run)
    assert job.show("NodeList") == "node[1-2]"
    cluster.kill("node2")
    try:
        job.comes_back()
        assert job.show("NodeList") == "node[1,3]"
        job.ends()
    finally:
        cluster.start("node2")
    assert_same_end(run, undisturbed)
    assert repeated(run) <= 2 * SAVE_EVERY  # the newest checkpoint may have been half-written
    fault(
        "a node dies",
        injected="SIGKILL of all processes of a node, its slurmd with them; three nodes, one spare",
        outcome="requeued, on the spare node from the last checkpoint",
        lost=repeated(run),
    )


def test_a_killed_rank_is_started_again_in_place(
    jobs: Jobs, undisturbed: Path, cluster: Cluster, fault: Callable[..., None]
) -> None:
    run = jobs.folder / "shot"
    job = jobs.pretrain(run)
    under_way(run)
    os.kill(rank_on(cluster, "node2"), signal.SIGKILL)
    job.ends()
    assert job.show("Restarts") == "0"
    log = (run / "logs" / job.number / "job.log").read_text()
    assert "node2: task 1: Killed" in log
    assert "failure 1 since step" in log
    assert_same_end(run, undisturbed)
    assert repeated(run) <= 2 * SAVE_EVERY
    fault(
        "a rank is killed",
        injected="SIGKILL of the rank on the second node",
        outcome="named with its host, all ranks started again in the same job",
        lost=repeated(run),
    )


def test_a_sweep_trains_one_run_a_line(jobs: Jobs) -> None:
    run, grid = jobs.folder / "sweep", jobs.folder / "grid.txt"
    grid.write_text(
        "--model.init_args.temperature 0.3\n"
        f"--model.init_args.temperature 0.4 --run '{run}/of its own name'\n"
    )
    shared = ["--data.manifest", str(jobs.shards), "--run", str(run), "--trainer.max_steps", "2"]
    options = ["--array=1-2", "--ntasks-per-node=1"]
    job = jobs.submit("sweep.sbatch", options, [str(grid), *jobs.arguments, *shared])
    for task, name, temperature in ((1, "1", 0.3), (2, "of its own name", 0.4)):
        Job(jobs.cluster, f"{job.number}_{task}").ends()
        config = yaml.safe_load((run / name / "fit.yaml").read_text())
        assert config["model"]["init_args"]["temperature"] == temperature
        assert (run / name / "checkpoints" / "step-00000002").is_dir()


def test_a_wrong_config_ends_the_job_at_once(jobs: Jobs) -> None:
    run = jobs.folder / "wrong"
    job = jobs.pretrain(run, more=("--model.init_args.temperature", "0"))
    job.ends("FAILED")
    assert job.show("ExitCode") == "2:0"
    assert job.show("Restarts") == "0"
    logs = run / "logs" / job.number
    assert "temperature must be at least 0.01" in (logs / "rank-0.log").read_text()
    log = (logs / "job.log").read_text()
    assert log.count("exit status 2, not tried again") == 1


def test_ranks_that_srun_did_not_start_are_refused_by_the_command_itself(
    jobs: Jobs, cluster: Cluster
) -> None:
    data = ["--data.manifest", str(jobs.shards), "--run", str(jobs.folder / "mismatched")]
    srun = ["srun", "--nodes=1", "--ntasks-per-node=2", "--job-name=pretrain"]
    with pytest.raises(
        RuntimeError, match=r"trainer\.devices is 1, but srun --ntasks-per-node is 2"
    ):
        cluster.run(*srun, sys.executable, "-m", "lightning_rad", "fit", *jobs.arguments, *data)
    assert not (jobs.folder / "mismatched").exists()


def test_shards_are_made_and_verified(jobs: Jobs) -> None:
    recipe = jobs.folder / "recipe.yaml"
    plain = (Path(__file__).parents[2] / "shards/synthetic.yaml").read_text()
    recipe.write_text(plain.replace("patients: 400", "patients: 12"))
    made = jobs.folder / "made"
    job = jobs.submit("make_shards.sbatch", ["--cpus-per-task=1"], [str(recipe), str(made)])
    job.ends()
    assert "0 problems" in job.output
    assert (made / "manifest.json").exists()


def rank_on(cluster: Cluster, node: str) -> int:
    """The process of the rank on a node."""
    command = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in cluster.processes(node)}
    ranks = [pid for pid, words in command.items() if b"lightning_rad\0fit" in words]
    assert len(ranks) == 1
    return ranks[0]
