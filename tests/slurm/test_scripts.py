"""The scripts themselves: linted where the linters are, and accepted by Slurm."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.jobs import SCRIPTS

SOURCES = sorted([*SCRIPTS.glob("*.sbatch"), *SCRIPTS.glob("*.sh"), *SCRIPTS.glob("env/*.sh")])


@pytest.mark.parametrize(
    "linter",
    [["shellcheck", "--external-sources", f"--source-path={SCRIPTS.parent}"], ["shfmt", "-d"]],
    ids=lambda command: command[0],
)
def test_no_linter_complains(linter: list[str]) -> None:
    if shutil.which(linter[0]) is None:
        pytest.skip(f"no {linter[0]}: apt-get install {linter[0]}")
    done = subprocess.run([*linter, *SOURCES], check=False, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.slurm
@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_takes_the_options_of_a_script(script: Path, cluster: Cluster) -> None:
    cluster.run("sbatch", "--test-only", "--nodes=1", str(script), "--run", "x")
