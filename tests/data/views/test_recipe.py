import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

import lightning_rad
from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.cutout import Cutout
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.random_zoom import RandomZoom, ZoomCrop, ZoomCutout
from lightning_rad.data.views.recipe import ViewRecipe
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.gaze import Saliency

CONFIGS = sorted((Path(lightning_rad.__file__).parents[1] / "configs" / "view").glob("*.yaml"))
CROP = {"scale": [0.3, 1.0]}


def from_yaml(views):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--views", type=list[ViewRecipe])
    return parser.instantiate(parser.parse_args(["--views", yaml.safe_dump(views)])).views


def random_view(**init_args):
    path = "lightning_rad.data.views.random_view.RandomView"
    return [{"class_path": path, "init_args": {"size": 32, "crop": CROP, **init_args}}]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_in_configs_is_accepted_and_draws(path):
    recipes = from_yaml(yaml.safe_load(path.read_text())["data"]["views"])
    assert len({recipe.size for recipe in recipes}) == 1
    sizes, names = np.array([(300, 200), (20, 30)]), np.arange(2)
    for view, recipe in enumerate(recipes):
        assert isinstance(recipe, ViewRecipe)
        assert len(recipe.draw(sizes, seed=0, epochs=names, units=names, view=view)) == 2


def test_there_are_recipes_in_configs():
    assert "two_view" in {path.stem for path in CONFIGS}


def test_only_recipes_named_for_it_mirror_and_those_of_reports_only_whole_studies():
    for path in CONFIGS:
        data = yaml.safe_load(path.read_text())["data"]
        mirrors = any(view["init_args"]["crop"]["flip"] for view in data["views"])
        assert mirrors == ("mirrored" in path.name), path.name
        studies, of_reports = data.get("shuffle", {}).get("flip"), "_view_reports" in path.name
        assert not studies or of_reports, path.name
        assert studies is not None or not of_reports, path.name


PARTS = [
    *(RandomView, WholeImage, Crop, Intensity, Blur, Noise, Cutout),
    *(FocusView, FocusCrop, FocusCutout, FocusDrop, RandomZoom, ZoomCrop, ZoomCutout, Saliency),
]


@pytest.mark.parametrize("part", PARTS)
def test_the_command_line_help_explains_every_setting(part):
    parser = ArgumentParser()
    parser.add_class_arguments(part)
    assert not re.findall(r"--(\S+) \S+\s+\((?:type|required)", parser.format_help())


@pytest.mark.parametrize(
    ("init_args", "message"),
    [
        ({"crop": {"scale": [0.3, 3.0]}}, r"crop\.scale: \[0\.3, 3\.0\]"),
        ({"crop": {"scales": [0.3, 1.0]}}, "scales"),
        ({"blur": {"probability": 2}}, r"blur\.probability: 2\.0 .* accepted: 0\.0 to 1\.0"),
        ({"size": 0}, "size: 0"),
        ({"blurr": {"probability": 0.5}}, "blurr"),
    ],
)
def test_a_mistake_in_yaml_is_named(init_args, message):
    with pytest.raises(Exception, match=message):
        from_yaml(random_view(**init_args))
