import multiprocessing
import os

import pytest

from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import Recipe, SourceSettings
from tests.sharding.phantoms import Phantoms


class Deadly(Phantoms):
    """A source that takes its process along, as one that runs out of memory does."""

    def read(self, study):
        os._exit(9)


class Faulty(Phantoms):
    """A source with a bug."""

    def read(self, study):
        raise KeyError("a bug of the source")


def settings(kind):
    source = SourceSettings(f"{__name__}.{kind.__name__}")
    return Recipe(name="x", namespace="x", salt="public", source=source, images_per_shard=4)


def test_a_worker_that_dies_ends_the_build_with_advice(tmp_path):
    with pytest.raises(ValueError, match=r"a worker process died \(out of memory\?\); run the sam"):
        build_recipe(settings(Deadly), tmp_path, workers=2)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_of_the_source_is_not_hidden_and_leaves_no_process(tmp_path, workers):
    before = set(multiprocessing.active_children())  # other tests keep a pool
    with pytest.raises(KeyError, match="a bug of the source"):
        build_recipe(settings(Faulty), tmp_path, workers=workers)
    assert set(multiprocessing.active_children()) <= before
