"""One cluster for all tests marked slurm, taken down whatever happens."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.jobs import Jobs, environment


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of four CPUs and four GPUs that are none."""
    if why := missing():
        pytest.skip(f"no Slurm: {why}")
    with mock.patch.dict("os.environ", environment()):
        started = Cluster(tmp_path_factory.mktemp("cluster"))
        try:
            started.up()
            yield started
        finally:
            started.down()


@pytest.fixture(scope="session")
def jobs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Jobs:
    """Submits to the cluster."""
    return Jobs(cluster, tmp_path_factory.mktemp("jobs"), tiny_shards)


@pytest.fixture(scope="session")
def undisturbed(jobs: Jobs) -> Path:
    """The folder of a run that nothing happened to, which the others must equal."""
    run = jobs.folder / "undisturbed"
    jobs.pretrain(run).ends()
    return run
