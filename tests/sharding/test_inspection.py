import io

import cv2
import pytest
from rich.console import Console

from lightning_rad.manifest import ManifestError
from lightning_rad.sharding import index, inspect
from lightning_rad.sharding.builder import build_recipe
from tests.sharding.phantoms import phantom, recipe
from tests.sharding.test_foreign import study, write_shards


def printed(folder, **more):
    console = Console(file=io.StringIO(), width=120)
    manifest = inspect(folder, console=console, **more)
    return manifest, console.file.getvalue()


def test_the_table_adds_up_to_the_manifest(tmp_path):
    built = build_recipe(recipe(source={"patients": 40}), tmp_path, workers=1)
    manifest, text = printed(tmp_path)
    assert manifest == built
    for split in ("train", "val", "test"):
        images = sum(s.images for s in built.shards if s.split == split)
        patients = sum(s.patients for s in built.shards if s.split == split)
        line = next(li for li in text.splitlines() if split in li.split())
        assert {str(images), str(patients)} <= set(line.replace("│", " ").split())
    assert "Effusion" in text
    assert "views: AP" in text
    assert "report, gaze, boxes" in text


def test_the_sheet_shows_the_stored_images_with_their_boxes(tmp_path):
    build_recipe(recipe(), tmp_path / "b", workers=1)
    printed(tmp_path / "b", sheet=tmp_path / "deep" / "sheet.png", images=8)
    sheet = cv2.imread(str(tmp_path / "deep" / "sheet.png"))
    assert sheet.shape == (2 * (224 + 18), 6 * 224, 3)
    coloured = (sheet.max(axis=2).astype(int) - sheet.min(axis=2)) > 100
    assert all(coloured[:224, x : x + 224].any() for x in range(0, 6 * 224, 224))
    assert not coloured[242:, 2 * 224 :].any()


def test_shards_of_others_can_be_looked_at(tmp_path):
    write_shards(tmp_path / "w", [study(n) for n in range(4)])
    index(tmp_path / "w")
    _, text = printed(tmp_path / "w", sheet=tmp_path / "s.png", images=4)
    assert "4 images drawn" in text
    assert cv2.imread(str(tmp_path / "s.png")).std() > 10


def test_a_sheet_that_cannot_be_is_refused(tmp_path):
    build_recipe(recipe(), tmp_path, workers=1)
    with pytest.raises(ValueError, match=r"sheet: cannot write .*\.pdf'; give the name of a \.png"):
        printed(tmp_path, sheet=tmp_path / "s.pdf")
    with pytest.raises(ManifestError, match="no shard of split 'dev'"):
        printed(tmp_path, sheet=tmp_path / "s.png", split="dev")
    assert phantom(0).std() > 10
