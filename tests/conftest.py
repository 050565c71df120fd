"""Shards that many tests read: built once a session from synthetic patients."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

# Triton reads this when torch imports it: without a GPU its kernels run in the interpreter
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from hypothesis import HealthCheck, settings

from lightning_rad import sharding
from tests.faults import Fault

# how long a draw takes says how busy the machine is
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    # advice of Lightning's about runs that tests make small on purpose; a category of a package
    # named in pyproject.toml would import it, and Triton with it, before this file is read
    advice = "pytorch_lightning.utilities.warnings.PossibleUserWarning"
    config.addinivalue_line("filterwarnings", f"ignore::{advice}")


@pytest.fixture(autouse=True)
def no_group_is_left() -> Iterator[None]:
    """Lightning leaves a run's process group, and its place in it, to the tests that follow."""
    place = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
    before = {name: os.environ[name] for name in place if name in os.environ}
    yield
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    for name in place:
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 90 studies of 32 pixels in several shards, with labels, boxes, reports and gaze."""
    folder = tmp_path_factory.mktemp("tiny")
    sharding.synthesize(folder, patients=60, size=32, seed=1, images_per_shard=20, workers=1)
    return folder


@pytest.fixture(scope="session")
def other_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of other patients."""
    folder = tmp_path_factory.mktemp("other")
    sharding.synthesize(folder, patients=60, size=32, seed=2, images_per_shard=20, workers=1)
    return folder


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps a row of docs/reliability.md, where a ledger is asked for: the last line of a test."""

    def keep(
        fault: str, *, injected: str, outcome: str, lost: int | str, identical: str = "bits"
    ) -> None:
        test = request.node.nodeid.partition("[")[0]
        row = Fault(fault, injected, outcome, str(lost), identical, test)
        if ledger := os.environ.get("FAULT_LEDGER"):
            with Path(ledger).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")

    return keep
