"""What the sources of the objectives that read reports say, in the files that follow them.

The tests of REFERS look at the model of configs/paper/refers.yaml.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
CLIP = {"form": "softmax", "temperature": 0.07, "learned": True, "least": 0.01}
CONVIRT = {"form": "softmax", "temperature": 0.1, "learned": False, "image_share": 0.75}
SIGLIP = {"form": "sigmoid", "temperature": 0.1, "learned": True, "bias": -10.0}
CROP = {"scale": [0.05, 1.0], "ratio": [0.6, 1.0], "rotation": 0.0, "flip": 0.0}
GREYS = {"probability": 0.8, "brightness": 0.2, "contrast": 0.4, "gamma": 1.0}


def of(name: str, *keys: str) -> Any:
    """What stands in a file, under some keys."""
    body = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return reduce(lambda part, key: part[key], keys, body)


def model(name: str) -> Any:
    return of(name, "model", "init_args")


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("image_report_clip", CLIP),
        ("image_report_clip_small", CLIP),
        ("image_report_convirt", CONVIRT),
        ("image_report_siglip", SIGLIP),
        ("image_report_siglip_small", SIGLIP),
    ],
)
def test_each_form_of_the_contrast_has_its_own_constants(
    name: str, contrast: dict[str, Any]
) -> None:
    assert model(f"objective/{name}")["contrast"] == contrast


def test_only_convirt_reads_one_sentence_through_heads_with_a_hidden_layer() -> None:
    for name in ("clip", "siglip", "convirt"):
        given = model(f"objective/image_report_{name}")
        assert given["reports"].get("sentence", False) == (name == "convirt")
        heads = given["projector"]["init_args"], given["text"]["projector"]["init_args"]
        assert {head["layers"] for head in heads} == {2 if name == "convirt" else 1}
        assert {head["out_features"] for head in heads} == {768 if name == "siglip" else 512}


def test_refers_of_the_stack_is_that_of_the_paper_with_another_text_encoder() -> None:
    ours, paper = model("objective/refers"), model("paper/refers")
    assert ours.pop("text")["class_path"].endswith("TextTransformer")
    assert paper.pop("text")["class_path"].endswith("PretrainedText")
    assert ours == paper
    assert of("objective/refers", "data", "shuffle", "images") == "independent"
    assert of("objective/refers_small", "data", "shuffle", "images") == "independent"


@pytest.mark.parametrize("name", ["paper/refers", "view/three_view_reports"])
def test_views_of_refers_are_those_of_its_code_three_times(name: str) -> None:
    views = of(name, "data", "views")
    assert len(views) == 3
    for view in views:
        assert view["init_args"] == {"size": 224, "crop": CROP, "intensity": GREYS}
    assert of(name, "data", "shuffle", "flip") == 0.5
    assert of(name, "data", "normalise") == {"mean": 0.449, "std": 0.226}


@pytest.mark.parametrize(
    "file", sorted((CONFIGS / "view").glob("*_reports*")), ids=lambda f: f.stem
)
def test_no_view_beside_a_report_is_mirrored_by_itself(file: Path) -> None:
    for view in of(f"view/{file.stem}", "data", "views"):
        assert view["init_args"]["crop"]["flip"] == 0.0
