"""Recorded fixations of a CSV: to their images, in fractions, whatever is done to the pixels."""

import json

import pytest

from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.modalities.radiograph import decode_image
from lightning_rad.sharding import verify
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.sources.table import TableSource
from tests.sharding.phantoms import phantom, write_csv, write_images

COLUMNS = {"image": "file", "patient": "who", "study": "visit"}


def look(image, x=4, y=8, seconds=0.25, **more):
    return {"image": image, "x": x, "y": y, "seconds": seconds} | more


def source(folder, looks, images=("a.png", "b.png"), gaze=None):
    rows = [{"file": name, "who": "Smith", "visit": "1"} for name in images]
    write_csv(folder / "table.csv", rows)
    write_csv(folder / "gaze.csv", looks)
    write_images(folder, images)
    given = {"csv": "gaze.csv"} if gaze is None else gaze
    return TableSource(folder, csv="table.csv", columns=COLUMNS, gaze=given)


def test_fixations_go_to_their_images_in_order_as_fractions_of_the_file(tmp_path):
    looks = [look("b.png", x=1), look("a.png"), look("b.png", x=0.5, y=900, seconds=0)]
    table = source(tmp_path, looks)
    ((study,), rejected) = table.plan()
    assert rejected == []
    height, width = phantom("a.png").shape
    assert height != width
    first, second = table.read(study).images
    assert [(f.x, f.y, f.seconds) for f in first.fixations] == [(4 / width, 8 / height, 0.25)]
    assert [(f.x, f.y, f.seconds) for f in second.fixations] == [
        (1 / width, 8 / height, 0.25),
        (0.5 / width, 900 / height, 0),  # outside: kept, and readers pass it over
    ]


def test_bad_rows_are_refused_by_file_and_line(tmp_path):
    looks = [
        look("a.png"),
        look("a.png", x="?"),
        look("a.png", y=""),
        look("a.png", x="nan"),
        look("a.png", seconds="inf"),
        look("a.png", seconds=-0.1),
        look("z.png"),
    ]
    table = source(tmp_path, looks)
    ((study,), rejected) = table.plan()
    assert [len(image.fixations) for image in table.read(study).images] == [1, 0]
    damaged = "damaged gaze: a fixation not finite, or of negative duration"
    assert {r.where: r.reason for r in rejected} == {
        "gaze.csv line 3": "damaged gaze: no number in column 'x'",
        "gaze.csv line 4": "damaged gaze: no number in column 'y'",
        "gaze.csv line 5": damaged,
        "gaze.csv line 6": damaged,
        "gaze.csv line 7": damaged,
        "gaze.csv line 8": "gaze without image: no accepted row has its image",
    }


def test_pixels_of_a_larger_original_need_its_size(tmp_path):
    looks = [look("a.png", x=500, y=900, w=2000, h=1000), look("a.png", w=0, h=1000)]
    table = source(tmp_path, looks, gaze={"csv": "gaze.csv", "width": "w", "height": "h"})
    ((study,), rejected) = table.plan()
    assert [(f.x, f.y) for f in table.read(study).images[0].fixations] == [(0.25, 0.9)]
    assert [r.reason for r in rejected] == ["damaged gaze: a size of the picture that is none"]


@pytest.mark.parametrize(
    ("gaze", "message"),
    [
        ({"csv": "none.csv"}, r"none\.csv: No such file"),
        ({"csv": "gaze.csv", "seconds": "ms"}, r"gaze\.csv: no column 'ms'; there are image, x"),
        ({"csv": "gaze.csv", "duration": "s"}, r"gaze: unknown key 'duration'; accepted are csv"),
        ({"csv": "gaze.csv", "width": "w"}, r"gaze: give both of 'width' and 'height', or neith"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_errors(tmp_path, gaze, message):
    with pytest.raises(ValueError, match=message) as error:
        source(tmp_path, [look("a.png")], gaze=gaze).plan()
    assert "\n" not in str(error.value)


def test_a_table_without_gaze_is_planned_as_before_there_was_any(tmp_path):
    """Else every set that was built from a table would have to be built anew."""
    with_gaze = source(tmp_path, [look("a.png")])
    without = TableSource(tmp_path, csv="table.csv", columns=COLUMNS)
    assert "look" not in repr(without.plan()).lower()
    assert "looks=(Look(" in repr(with_gaze.plan())


def test_shrinking_leaves_fixations_where_they_were_in_the_picture(tmp_path):
    source(tmp_path / "raw", [look("a.png"), look("a.png", x=2, y=1, seconds=1.5)])
    settings = SourceSettings(
        "lightning_rad.sharding.sources.table.TableSource",
        {"csv": "table.csv", "columns": COLUMNS, "gaze": {"csv": "gaze.csv"}},
    )
    image = ImageSettings(short_side=16)
    recipe = Recipe("t", "t", settings, salt="public", image=image, splits={"train": 1.0})
    build_recipe(recipe, tmp_path / "o", root=tmp_path / "raw", workers=1)
    manifest = load_manifest(tmp_path / "o")
    assert "gaze" in manifest.fields
    index = load_index(manifest, manifest.shards)
    data = index.files[0].read_bytes()
    (study,), picture = index.studies, index.images[0]
    stored = decode_image(data[picture["offset"] :][: picture["size"]]).pixels
    height, width = phantom("a.png").shape
    assert min(stored.shape) == 16 < min(height, width)
    said = json.loads(data[study["gaze_offset"] :][: study["gaze_size"]])
    want = [[4 / width, 8 / height, 0.25], [2 / width, 1 / height, 1.5]]
    assert said == {"00": [pytest.approx(row, abs=1e-5) for row in want]}
    assert verify([tmp_path / "o"], workers=1).ok
