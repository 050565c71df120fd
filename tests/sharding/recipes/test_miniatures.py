"""The recipes of public sets, each on a miniature in the set's own files and columns."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightning_rad.sharding import verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import load_recipe
from tests.sharding.phantoms import phantom
from tests.sharding.recipes import miniatures
from tests.sharding.recipes.more_miniatures import MORE

RECIPES = Path(__file__).parents[3] / "shards"
MINIATURES = miniatures.MINIATURES | MORE


def build(name: str, folder: Path):
    raw = folder / "raw"
    raw.mkdir()
    expected = MINIATURES[name](raw)
    recipe = load_recipe(RECIPES / f"{name.split(' ', 1)[0]}.yaml")
    salt = folder / "salt"
    manifest = build_recipe(recipe, folder / "out", root=raw, workers=1, salt_file=salt)
    return manifest, expected


def members(manifest, suffix: str):
    """The data of every member of the shards whose name ends so."""
    for shard in manifest.shards:
        with tarfile.open(manifest.root / shard.file) as tar:
            for member in tar:
                if member.name.endswith(suffix):
                    yield tar.extractfile(member).read()


@pytest.mark.parametrize("name", MINIATURES)
def test_a_recipe_makes_of_its_set_what_was_counted_by_hand(name, tmp_path):
    manifest, expected = build(name, tmp_path)
    patients = Counter()
    for shard in manifest.shards:
        official = shard.split in expected.patients
        patients[shard.split if official else "hash"] += shard.patients
    assert patients == expected.patients
    assert sum(shard.studies for shard in manifest.shards) == expected.studies
    assert manifest.details["views"] == expected.views
    assert manifest.details["rejected"] == expected.rejected
    found = {
        finding: tuple(
            sum(split[finding][state] for split in manifest.prevalence.values())
            for state in ("present", "absent", "unknown")
        )
        for finding in expected.labels
    }
    assert found == expected.labels
    assert sorted(text.decode().strip() for text in members(manifest, ".txt")) == expected.reports
    images = [image for data in members(manifest, ".json") for image in json.loads(data)["images"]]
    boxes = [(b["label"], *(b[side] for side in "xywh")) for i in images for b in i["boxes"]]
    assert sorted(boxes) == expected.boxes
    assert {i["bits"] for i in images} == {8}
    report = verify([manifest.root], workers=1)
    assert (report.problems, report.notes) == ([], [])


def test_deep_files_are_windowed_at_their_own_percentiles_and_negatives_turned(tmp_path):
    manifest, _ = build("padchest", tmp_path)
    stored = [cv2.imdecode(np.frombuffer(d, np.uint8), 0) for d in members(manifest, ".jpg")]
    assert all(image.min() < 12 and image.max() > 243 for image in stored)
    names = {"2168_00-1.png": 1, "2169_03-1.png": -1, "2170_54-1.png": 1}
    for name, sign in names.items():
        raw = phantom(name, dtype=np.uint16, top=4095).ravel()
        likeness = [np.corrcoef(raw, image.ravel())[0, 1] for image in stored]
        assert max(likeness, key=abs) * sign > 0.98


def test_labels_have_one_name_in_all_sets():
    names = {}
    for path in (RECIPES / f"{name.split(' ', 1)[0]}.yaml" for name in MINIATURES):
        for label in load_recipe(path).labels:
            names.setdefault(label.lower().replace("_", " "), set()).add(label)
    assert all(len(spellings) == 1 for spellings in names.values()), names
    assert "effusion" not in names
    assert "pleural effusion" in names


def images_of(manifest):
    """(patient, record, pixels) of every image."""
    for shard in manifest.shards:
        with tarfile.open(manifest.root / shard.file) as tar:
            data = {member.name: tar.extractfile(member).read() for member in tar}
        for name in (name for name in data if name.endswith(".json")):
            study = json.loads(data[name])
            for image in study["images"]:
                file = data[f"{name.removesuffix('json')}{image['file']}"]
                yield study["patient"], image, cv2.imdecode(np.frombuffer(file, np.uint8), 0)


def test_the_patients_of_rsna_are_those_of_chestxray14_wherever_the_two_are_mixed(tmp_path):
    patients, tested = {}, {}
    for name in ("nih_chestxray14", "rsna_pneumonia"):
        (tmp_path / name).mkdir()
        raw = tmp_path / name / "raw"
        raw.mkdir()
        MINIATURES[name](raw)
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        out, salt = tmp_path / name / "out", tmp_path / "salt"
        manifest = build_recipe(recipe, out, root=raw, workers=1, salt_file=salt)
        studies = [json.loads(data) for data in members(manifest, ".json")]
        patients[name] = {study["patient"] for study in studies}
        tested[name] = {study["patient"] for study in studies if study["split"] == "test"}
    assert patients["nih_chestxray14"] == patients["rsna_pneumonia"]
    assert tested["nih_chestxray14"] == tested["rsna_pneumonia"] != set()


def test_the_right_knee_is_the_left_half_of_the_picture_and_one_grade_is_given(tmp_path):
    manifest, _ = build("oai_knee", tmp_path)
    whole = phantom("0.C.2/9000099/20050101/00300001", width=96, dtype=np.uint16, top=4095)
    halves = {"RIGHT": (whole[:, :48], "kl_2"), "LEFT": (whole[:, 48:], "kl_0")}
    found = {}
    for patient, image, pixels in images_of(manifest):
        half, grade = halves[image["view"]]
        if np.corrcoef(half.ravel(), pixels.ravel())[0, 1] > 0.98:
            found.setdefault(patient, set()).add(image["view"])
            assert [name for name, state in image["labels"].items() if state == 1] == [grade]
    assert list(found.values()) == [{"LEFT", "RIGHT"}]


def test_a_negative_of_vindr_is_turned_by_its_header(tmp_path):
    manifest, _ = build("vindr_cxr", tmp_path)
    stored = [pixels.ravel() for _, _, pixels in images_of(manifest)]
    for name, sign in (("train/50a418190bc3fb1e", -1), ("train/21a10246a5ec7af1", 1)):
        raw = phantom(name, dtype=np.uint16, top=4095).ravel()
        likeness = [np.corrcoef(raw, pixels)[0, 1] for pixels in stored]
        assert max(likeness, key=abs) * sign > 0.98
