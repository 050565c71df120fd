"""Reports of Open-i as rows; the real ones are read where they are."""

import logging
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from lightning_rad.sharding.recipe import load_recipe, make_source
from lightning_rad.sharding.sources.open_i import LARGEST, OpenISource, words_of
from tests.sharding.phantoms import write_csv, write_images
from tests.sharding.recipes.miniatures import write
from tests.sharding.recipes.more_miniatures import report

DATA = os.environ.get("RAD_SAMPLE_DATA")
FILE = Path(DATA or "") / "openi_reports" / "NLMCXR_reports.tgz"
RECIPE = Path(__file__).parents[3] / "shards" / "open_i.yaml"
LABELS = {"column": "terms", "nothing": ["normal"], "others": "any",
          "findings": {"Opacity": "Opacity/lung"}}  # fmt: skip


def test_a_term_is_known_by_its_heading_and_by_each_qualifier():
    assert words_of("Opacity/lung/base/left ") == [
        "Opacity", "Opacity/lung", "Opacity/base", "Opacity/left"
    ]  # fmt: skip
    assert words_of("normal") == ["normal"]


def test_damaged_reports_are_refused_by_number_and_those_without_images_left_out(tmp_path, caplog):
    folder = tmp_path / "ecgen-radiology"
    write(folder / "1.xml", report(1, ["a"], ["normal"], FINDINGS="Clear."))
    write(folder / "2_smith.xml", ["<eCitation><uId id='CXR2'>"])
    write(folder / "3.xml", report(3, [], ["normal"]))
    write(folder / "4.xml", ["<eCitation><parentImage id='b'/></eCitation>"])
    write(folder / "5.xml", [" " * LARGEST, *report(5, ["c"], [])])
    write(folder / "6.xml", report(6, ["", "a"], ["Opacity/ribs"]))
    with caplog.at_level(logging.WARNING):
        studies, rejected = OpenISource(tmp_path, labels=LABELS).plan()
    assert [(s.patient, [i.file for i in s.images]) for s in studies] == [("CXR1", ["a.png"])]
    assert dict(studies[0].images[0].labels) == {"Opacity": 0}
    found = {r.where: r.reason for r in rejected}
    assert found.pop("report 2 of 6, sorted").startswith("damaged report: no XML: no element found")
    assert found == {
        "report 4 of 6, sorted": "damaged report: no uId",
        "report 5 of 6, sorted": "damaged report: more than 1048576 bytes",
        "report 6 of 6, sorted, image 1": "row without image",
        "report 6 of 6, sorted, image 2": "duplicate key: the same image as report 1 of 6, sorted, "
        "image 1",
    }
    assert "1 reports are left out: they name no image" in caplog.text


def test_views_may_come_from_a_table_beside_the_reports(tmp_path):
    write(tmp_path / "ecgen-radiology/1.xml", report(1, ["CXR1_a", "CXR1_b"], []))
    write_images(tmp_path, ["CXR1_a.png", "CXR1_b.png"])
    write_csv(tmp_path / "views.csv", [{"imageid": "CXR1_b", "View Position": "LL"}])
    join = {"csv": "views.csv", "by": {"image": "imageid"}, "columns": {"view": "View Position"}}
    source = OpenISource(tmp_path, joins=[join], columns={"view": "view"}, views={"LL": "LATERAL"})
    (study,), rejected = source.plan()
    assert ([image.view for image in study.images], rejected) == (["", "LATERAL"], [])
    assert source.read(study).report is None


def test_a_folder_without_reports_and_a_column_that_reports_lack_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file matches 'ecgen-radiology/\*\.xml' \(reports\)"):
        OpenISource(tmp_path).plan()
    with pytest.raises(ValueError, match=r"reports: no column 'view'; there are report, image, te"):
        OpenISource(tmp_path, columns={"view": "view"}).plan()


@pytest.mark.skipif(
    not (DATA and FILE.is_file()),
    reason="needs real reports: set RAD_SAMPLE_DATA to the folder of openi_reports",
)
def test_the_real_reports_give_every_image_once_and_all_findings(tmp_path):
    with tarfile.open(FILE) as tar:
        tar.extractall(tmp_path, filter="data")
    recipe = load_recipe(RECIPE)
    studies, rejected = make_source(recipe.source, tmp_path).plan()
    assert (len(studies), rejected) == (3851, [])
    assert sum(len(study.images) for study in studies) == 7470
    labels = [dict(study.images[0].labels) for study in studies]
    present = Counter(name for each in labels for name, state in each.items() if state == 1)
    assert set(present) == set(recipe.labels)
    assert sum(set(each.values()) == {0} for each in labels) > 1300
    reports = [study.images[0].report for study in studies]
    assert sum(text.count("\nIMPRESSION: ") > 1 for text in reports) == 0
    assert sum(text.startswith("COMPARISON: ") for text in reports) > 2000
