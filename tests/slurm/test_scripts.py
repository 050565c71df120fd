"""The scripts themselves: linted, and accepted by Slurm."""

from pathlib import Path

import pytest

from tests.linters import complaints
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import SCRIPTS

ROOT = SCRIPTS.parent
SOURCES = sorted([*SCRIPTS.glob("*.sbatch"), *SCRIPTS.glob("*.sh"), *SCRIPTS.glob("env/*.sh")])


def test_shellcheck_finds_nothing() -> None:
    others = [ROOT / name for name in ("docker/lock.sh", "benchmarks/gpu.sh", ".ci/run")]
    how = ("--external-sources", f"--source-path={ROOT}")
    assert complaints("shellcheck", *how, *SOURCES, *others) == ""


def test_shfmt_changes_nothing() -> None:
    assert complaints("shfmt", "-d", *SOURCES) == ""


@pytest.mark.slurm
@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.name)
def test_slurm_takes_the_options_of_a_script(script: Path, cluster: Cluster) -> None:
    cluster.run("sbatch", "--test-only", "--nodes=1", str(script), "--run", "x")
