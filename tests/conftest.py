"""Shards that many tests read: built once a session from synthetic patients."""

from pathlib import Path

import pytest

from lightning_rad import sharding


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
