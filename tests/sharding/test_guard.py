"""Scrubbed reports and the review list: what a build with `privacy` makes, and one without."""

import json
import tarfile
from dataclasses import dataclass

import cv2
import pytest

from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.recipe import PrivacySettings, SourceSettings, load_recipe
from lightning_rad.sharding.source import ReadStudy
from tests.sharding.phantoms import Phantoms, phantom, recipe, tree

REPORT = "Seen 3/4/2019 by Dr. Jane Doe. Nodule of 2.3 cm."


@dataclass(frozen=True)
class Told(Phantoms):
    """Phantoms with a report that says who and when; a patient's first image bears a name."""

    def read(self, study):
        read = super().read(study)
        return ReadStudy(read.images, REPORT, read.rejected)

    def radiograph(self, record):
        made = super().radiograph(record)
        if record[2] or record[1] or record[0] % 4:
            return made
        pixels = phantom(self.seed, record, height=400, width=480) // 2
        cv2.putText(pixels, "DOE JANE 1956", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        object.__setattr__(made, "pixels", pixels)
        return made


def built(folder, workers=1, **privacy):
    source = SourceSettings(f"{__name__}.Told")
    changed = recipe(privacy=PrivacySettings(**privacy))
    object.__setattr__(changed, "source", source)
    return build_recipe(changed, folder, workers=workers)


def reports(manifest):
    for shard in manifest.shards:
        with tarfile.open(manifest.root / shard.file) as tar:
            yield from (tar.extractfile(m).read().decode() for m in tar if m.name.endswith("txt"))


def test_reports_are_scrubbed_and_counted_only_where_it_is_asked_for(tmp_path):
    plain, scrubbed = built(tmp_path / "a"), built(tmp_path / "b", scrub_reports=True)
    assert set(reports(plain)) == {REPORT}
    assert set(reports(scrubbed)) == {"Seen ___ by Dr. ___. Nodule of 2.3 cm."}
    studies = sum(shard.studies for shard in scrubbed.shards)
    said = scrubbed.details["privacy"]
    assert said == {"rules": {"scrub_reports": 1}, "scrubbed": {"date": studies, "name": studies}}
    assert "privacy" not in plain.details
    assert not (tmp_path / "b/review.jsonl").exists()


def test_pictures_with_text_are_listed_by_key_and_kept_as_they_are(tmp_path):
    plain, reviewed = built(tmp_path / "a"), built(tmp_path / "b", review_text=True)
    lines = [json.loads(line) for line in (tmp_path / "b/review.jsonl").read_text().splitlines()]
    assert len(lines) == reviewed.details["privacy"]["to_review"] == 4
    names = set()
    for shard in reviewed.shards:
        with tarfile.open(reviewed.root / shard.file) as tar:
            names |= set(tar.getnames())
    assert {line["image"] for line in lines} <= names
    assert all(0 <= v <= 1 for line in lines for region in line["regions"] for v in region)
    assert [s.sha256 for s in plain.shards] == [s.sha256 for s in reviewed.shards]


def test_the_bytes_and_the_list_do_not_depend_on_workers(tmp_path):
    for workers in (1, 3):
        built(tmp_path / str(workers), workers, scrub_reports=True, review_text=True)
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def test_a_recipe_without_the_key_is_what_it_was_and_one_with_it_is_another():
    assert recipe().digest == recipe(privacy=PrivacySettings()).digest
    assert recipe().digest != recipe(privacy=PrivacySettings(scrub_reports=True)).digest


@pytest.mark.parametrize("body", ["{scrub: true}", "{scrub_reports: yes please}"])
def test_a_wrong_key_or_value_is_refused_by_name(tmp_path, body):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: a\nnamespace: b\nsource: {{class_path: x.Y}}\nprivacy: {body}\n")
    with pytest.raises(ValueError, match=r"r\.yaml: privacy: .*scrub"):
        load_recipe(path)
