"""The image, built once a session, and containers that do not outlive their test."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker.engine import Engine, missing

GIB = 1 << 30
ROOM = 25 * GIB  # podman: packages are unpacked once, copied once and kept in a layer


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Docker, or podman with a folder of its own, cleared at the end unless it is to be kept."""
    if reason := missing():
        pytest.skip(reason)
    kept = os.environ.get("LIGHTNING_RAD_CONTAINERS")
    engine = Engine(Path(kept) if kept else tmp_path_factory.mktemp("containers"))
    free = shutil.disk_usage(engine.folder).free
    if free < ROOM:
        pytest.skip(f"{engine.folder} has {free // GIB} GiB free, a build needs {ROOM // GIB}")
    yield engine
    if not kept:
        engine.clear()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The image of this tree; LIGHTNING_RAD_IMAGE names one that is there already."""
    name = os.environ.get("LIGHTNING_RAD_IMAGE", "localhost/lightning-rad:test")
    if "LIGHTNING_RAD_IMAGE" not in os.environ:
        engine.build(name)
    return name


@pytest.fixture
def container(engine: Engine) -> Iterator[Callable[[], str]]:
    """Names for containers, which are removed after the test."""
    names: list[str] = []

    def name() -> str:
        names.append(f"lightning-rad-{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield name
    for each in names:
        engine("rm", "--force", each, check=False)
