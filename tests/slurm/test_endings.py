"""What the scripts do after each way for ranks to end: a real Slurm, and ranks that end at will."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, until
from tests.slurm.jobs import Jobs

pytestmark = pytest.mark.slurm

# stands in for Python: rank 0 does what the next line says, the others wait for their end
RANK = f"""\
#!{sys.executable} -I
import os, signal, subprocess, sys, time
assert sys.argv[1:3] == ["-m", "lightning_rad"]
run = sys.argv[sys.argv.index("--run") + 1]
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: os._exit(85 if os.environ["SLURM_PROCID"] == "0" else 143))
met = f"{{os.environ['MASTER_ADDR']}}:{{os.environ['MASTER_PORT']}}"
with open(f"{{run}}/started", "a") as file:
    file.write(" ".join([os.environ["SLURM_PROCID"], met, *sys.argv[3:]]) + "\\n")
if os.environ["SLURM_PROCID"] != "0":
    time.sleep(60)
    sys.exit(1)
while open(f"{{run}}/started").read().count(met) < int(os.environ["SLURM_NTASKS"]):
    time.sleep(0.05)  # a signal that came before the handlers would be lost, as it is meant to be
with open(f"{{run}}/todo") as file:
    now, *later = file.read().splitlines()
with open(f"{{run}}/todo", "w") as file:
    file.write("\\n".join(later))
sys.exit(subprocess.call(["bash", "-c", now], env=os.environ | {{"run": run}}))
"""


class Fleeting:
    """A job whose rank 0 does at each start what a line of a file says."""

    def __init__(
        self, jobs: Jobs, name: str, *todo: str, layout: list[str] | None = None, **env: str
    ) -> None:
        self.run = jobs.folder / name
        self.run.mkdir()
        (self.run / "todo").write_text("\n".join([*todo, ""]))
        program = jobs.folder / "python"
        program.write_text(RANK)
        program.chmod(0o755)
        layout = layout or ["--nodes=2", "--ntasks-per-node=1"]
        arguments = ["--run", str(self.run), "--trainer.accelerator", "cpu"]
        self.job = jobs.submit("pretrain.sbatch", layout, arguments, PYTHON=str(program), **env)

    @property
    def log(self) -> str:
        return (self.run / "logs" / self.job.number / "job.log").read_text()

    def starts(self) -> list[str]:
        """The command line of each start of rank 0."""
        file = self.run / "started"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith("0 ")]


def test_the_agreed_status_requeues_and_the_rank_that_left_later_does_not_hide_it(
    jobs: Jobs,
) -> None:
    # rank 1 is ended by srun, with a status of its own
    job = Fleeting(jobs, "agreed", "exit 85", "exit 2")
    job.job.comes_back(60)
    job.job.ends("FAILED", seconds=60)
    assert job.job.show("Restarts") == "1"
    assert len(job.starts()) == 2
    assert all("--ckpt_path last" in start for start in job.starts())
    assert "failure" not in job.log


@pytest.mark.parametrize("status", [2, 86, 130])
def test_what_another_try_cannot_mend_is_not_tried_again(jobs: Jobs, status: int) -> None:
    job = Fleeting(jobs, f"end-{status}", f"exit {status}")
    job.job.ends("FAILED", seconds=60)
    assert job.job.show("ExitCode") == f"{status}:0"
    assert len(job.starts()) == 1


def test_a_crash_is_tried_again_so_many_times_and_progress_counts_anew(jobs: Jobs) -> None:
    checkpoint = 'mkdir -p "$run/checkpoints/step-00000010"; touch "$_/contents.json"; exit 1'
    crashes = ["exit 1", checkpoint, "exit 1", "exit 1", "exit 1"]
    job = Fleeting(jobs, "crashes", *crashes, RESTARTS="2")
    job.job.comes_back(60)  # the second at step 10 goes through the queue
    job.job.ends("FAILED", seconds=60)
    counted = [line.split("failure ")[1][:15] for line in job.log.splitlines() if "failure" in line]
    assert counted == ["1 since step 0,", *(f"{n} since step 10" for n in (1, 2, 3))]
    assert len({start.split()[1] for start in job.starts()[:2]}) == 2  # not the old port


def test_a_cancelled_job_does_not_come_back(jobs: Jobs) -> None:
    job = Fleeting(jobs, "cancelled", "sleep 60 & wait")
    until(lambda: bool(job.starts()), "the rank is there", 60)
    job.job.signal()
    job.job.ends("CANCELLED", seconds=60)
    until(lambda: "Slurm is ending this job" in job.log, "the script is done", 30)
    assert job.job.show("Restarts") == "0"
    assert job.job.show("JobState") == "CANCELLED"


def test_an_end_that_srun_never_hears_of_ends_the_wait(jobs: Jobs, cluster: Cluster) -> None:
    job = Fleeting(jobs, "unheard", "sleep 3; exit 2", SLURM_WAIT="2")
    until(lambda: bool(job.starts()), "the rank is there", 60)
    for pid in cluster.processes("node2"):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name != "slurmd":  # the step's daemon, which would tell, and its rank
            os.kill(pid, signal.SIGKILL)
    job.job.ends("FAILED", seconds=60)
    assert "exit status 2, not tried again" in job.log


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        ([], ["--trainer.devices", "2"], "--trainer.devices 2, but this job has 1"),
        ([], ["--trainer.num_nodes=4"], "--trainer.num_nodes 4, but this job has 2"),
        (["--gpus-per-node=2"], [], "--ntasks-per-node=1, but --gpus-per-node=2"),
    ],
)
def test_what_contradicts_slurm_is_refused_before_anything_starts(
    jobs: Jobs, options: list[str], more: list[str], said: str
) -> None:
    run = jobs.folder / "contradicts"
    layout = ["--nodes=2", "--ntasks-per-node=1", *options]
    job = jobs.submit("pretrain.sbatch", layout, ["--run", str(run), *more])
    job.ends("FAILED", seconds=60)
    assert job.show("ExitCode") == "2:0"
    assert said in job.output
    assert not run.exists()


@pytest.mark.parametrize(
    ("options", "ranks"),
    [(["--gpus-per-node=2"], 2), (["--gres=gpu:4"], 4), (["--ntasks-per-node=3"], 3), ([], 4)],
)
def test_ranks_are_the_gpus_or_the_tasks_asked_for(
    jobs: Jobs, options: list[str], ranks: int
) -> None:
    job = Fleeting(jobs, f"ranks-{'-'.join(options)}", "exit 2", layout=["--nodes=2", *options])
    job.job.ends("FAILED", seconds=60)
    assert f"--trainer.num_nodes 2 --trainer.devices {ranks}" in job.starts()[0]
    logs = job.run / "logs" / job.job.number
    assert len(list(logs.glob("rank-*.log"))) == 2 * ranks
