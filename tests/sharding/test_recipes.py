"""The recipes in shards/, on the real samples they are written for."""

import os
from pathlib import Path

import cv2
import pytest

from lightning_rad.manifest import Manifest
from lightning_rad.sharding import inspect, synthesize, verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import load_recipe
from lightning_rad.sharding.synthesis import synthetic_recipe

RECIPES = Path(__file__).parents[2] / "shards"
SAMPLES = {"nih_chestxray14_sample": "nih", "covid19_image_collection": "cxr"}
DATA = os.environ.get("RAD_SAMPLE_DATA")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid_and_says_where_its_data_come_from(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.salt == "public" or (recipe.url and recipe.licence and recipe.citation)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Manifest]:
    if not DATA:
        pytest.skip("needs real radiographs: set RAD_SAMPLE_DATA to their folder")
    folder = tmp_path_factory.mktemp("real")
    return {
        name: build_recipe(
            load_recipe(RECIPES / f"{name}.yaml"),
            folder / name,
            root=Path(DATA) / place,
            workers=2,
            salt_file=folder / "salt",
        )
        for name, place in SAMPLES.items()
    }


@pytest.mark.slow
def test_the_real_samples_build_without_loss_and_verify_together(built, tmp_path):
    for manifest in built.values():
        images = sum(shard.images for shard in manifest.shards)
        assert images > 250
        assert sum(manifest.details["rejected"].values()) <= 0.02 * images
        assert {s.split for s in manifest.shards} == {"train", "val", "test"}
        assert any(counts["present"] > 50 for counts in manifest.prevalence["train"].values())
        inspect(manifest.root, sheet=tmp_path / "sheet.png")
        assert cv2.imread(str(tmp_path / "sheet.png")).std() > 20
    report = verify([manifest.root for manifest in built.values()], workers=2)
    assert report.problems == []
    assert report.images == sum(s.images for m in built.values() for s in m.shards)
    assert set(built["covid19_image_collection"].fields) == {"report", "boxes"}


@pytest.mark.parametrize("body", ["chest", "knee"])
def test_synthesize_makes_what_its_recipe_says_and_sets_of_two_seeds_share_no_picture(
    tmp_path, body
):
    name = {"chest": "synthetic", "knee": "synthetic_knees"}[body]
    file = load_recipe(RECIPES / f"{name}.yaml")
    code = synthetic_recipe(400, 128, 0, 100, body)
    for key in ("labels", "splits", "image", "images_per_shard", "salt", "namespace", "name"):
        assert getattr(code, key) == getattr(file, key), key
    assert code.source.class_path == file.source.class_path
    assert code.source.init_args.items() <= file.source.init_args.items()
    for seed in (0, 1):
        synthesize(tmp_path / str(seed), patients=12, size=64, seed=seed, body=body, workers=1)
    report = verify([tmp_path / "0", tmp_path / "1"], workers=1)
    assert (report.problems, report.notes) == ([], [])


def test_the_recipe_of_synthetic_chests_is_the_one_it_was_before_there_were_knees():
    digests = {
        (400, 128, 0, 100): "b8ca329b4a775dea",
        (60, 32, 1, 20): "7943493dc27ed661",
    }
    for settings, digest in digests.items():
        assert synthetic_recipe(*settings).digest == digest


def test_a_body_that_nobody_draws_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="body: 'hand' is none of chest, knee"):
        synthesize(tmp_path, body="hand")
