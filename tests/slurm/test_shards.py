"""`make_shards.sbatch` on a real cluster: one set by an array of jobs."""

from pathlib import Path

import pytest

from lightning_rad.manifest import load_manifest
from lightning_rad.sharding import build
from tests.slurm.jobs import SCRIPTS, Jobs

pytestmark = pytest.mark.slurm


def test_an_array_builds_a_set_that_a_job_after_it_joins_and_verifies(
    jobs: Jobs, tmp_path: Path
) -> None:
    recipe, made = jobs.folder / "array.yaml", jobs.folder / "array"
    plain = (SCRIPTS.parent / "shards/synthetic.yaml").read_text()
    small = plain.replace("patients: 400", "patients: 12").replace("size: 128", "size: 48")
    recipe.write_text(small.replace("images_per_shard: 100", "images_per_shard: 4"))
    array = jobs.submit(
        "make_shards.sbatch", ["--cpus-per-task=1", "--array=1-3"], [str(recipe), str(made)]
    )
    after = ["--cpus-per-task=1", f"--dependency=afterok:{array.number}"]
    merged = jobs.submit("make_shards.sbatch", after, ["--merge", str(made)])
    merged.ends()
    assert "0 problems" in merged.output
    assert load_manifest(made).digest == build(recipe, tmp_path / "whole", workers=1).digest


def test_an_array_with_gaps_is_refused(jobs: Jobs) -> None:
    arguments = [str(SCRIPTS.parent / "shards/synthetic.yaml"), str(jobs.folder / "gaps")]
    job = jobs.submit("make_shards.sbatch", ["--cpus-per-task=1", "--array=1,3"], arguments)
    job.ends("FAILED")
    assert "--array has gaps: give it as FIRST-LAST" in job.output
    assert not list((jobs.folder / "gaps").glob("*.tar"))
