import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from lightning_rad.manifest import ManifestError
from lightning_rad.sharding import index, inspect
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.sheet import Tile, write_sheet
from lightning_rad.sharding.tar import walk
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


def at(picture, colour):
    """[H, W] bool: where a picture has a colour, or nearly so."""
    return (abs(picture.astype(int) - colour) < 80).all(axis=2)


def test_fixations_are_circles_at_their_places_with_areas_as_their_durations(tmp_path):
    pixels = np.zeros((100, 200), np.uint8)
    looks = [(0.25, 0.5, 1.0), (0.75, 0.5, 0.25)]
    write_sheet(tmp_path / "s.png", [Tile(pixels, "", [], looks)], columns=1)
    sheet = cv2.imread(str(tmp_path / "s.png"))
    magenta = at(sheet, (255, 64, 255))
    radii = []
    for left, centre in ((0, 56), (112, 168)):
        ys, xs = np.nonzero(magenta[:, left : left + 112])
        assert (xs.min() + xs.max() + 1) / 2 + left == pytest.approx(centre, abs=1)
        assert (ys.min() + ys.max() + 1) / 2 == pytest.approx(112, abs=1)
        radii.append((xs.max() - xs.min()) / 2)
    assert radii == [pytest.approx(12, abs=1), pytest.approx(6, abs=1)]


def test_a_map_is_the_contour_of_half_its_peak_over_the_whole_picture(tmp_path):
    pixels = np.zeros((200, 100), np.uint8)
    map_SS = np.zeros((8, 8), np.float32)
    map_SS[1, 6] = 0.5  # an eighth from the top, right of the middle
    write_sheet(tmp_path / "s.png", [Tile(pixels, "", [], (), map_SS)], columns=1)
    ys, xs = np.nonzero(at(cv2.imread(str(tmp_path / "s.png")), (64, 255, 64)))
    assert (ys.min() + ys.max() + 1) / 2 == pytest.approx(224 * 1.5 / 8, abs=2)
    assert (xs.min() + xs.max() + 1) / 2 == pytest.approx(56 + 112 * 6.5 / 8, abs=2)
    assert 20 < ys.max() - ys.min() < 32


def test_the_sheet_draws_the_gaze_of_shards_and_names_what_it_cannot(tmp_path):
    built = build_recipe(recipe(), tmp_path / "b", workers=1)
    _, text = printed(built.root, sheet=tmp_path / "s.png", images=8)
    assert "boxes yellow, fixations magenta" in " ".join(text.split())
    assert "green" not in text
    assert at(cv2.imread(str(tmp_path / "s.png")), (255, 64, 255)).any()
    tar = built.root / built.shards[0].file
    gaze = next(m for m in walk(tar) if m.name.endswith(".gaze.json"))
    with tar.open("r+b") as file:
        file.seek(gaze.offset)
        file.write(b"!" * gaze.size)
    with pytest.raises(ValueError, match=f"{tar}: {gaze.name[:33]}: cannot be drawn: ") as error:
        printed(built.root, sheet=tmp_path / "s.png", images=100)
    assert "\n" not in str(error.value)


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
