"""What is read of the tiny shards."""

from pathlib import Path

import pytest

from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.reading import Reading
from tests.data.evidence import edited
from tests.data.reports import reading_of
from tests.data.spots import of_spots


@pytest.fixture(scope="module")
def reading(tiny_shards: Path) -> Reading:
    return reading_of(tiny_shards)


@pytest.fixture(scope="module")
def names(tiny_shards: Path) -> tuple[str, ...]:
    """Three of their findings."""
    return load_manifest(tiny_shards).labels[:3]


@pytest.fixture(scope="module")
def spotted(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every image has a predicted map; the gaze of study 0 is gone."""
    out = tmp_path_factory.mktemp("spotted") / "out"
    return edited(tiny_shards, out, entry=of_spots, members={(0, "gaze"): b""})
