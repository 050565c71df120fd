"""How the reports of the tiny shards are read."""

from pathlib import Path

import pytest

from lightning_rad.modalities.reading import Reading
from tests.data.reports import reading_of


@pytest.fixture(scope="module")
def reading(tiny_shards: Path) -> Reading:
    return reading_of(tiny_shards)
