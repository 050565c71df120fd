"""Annotated shards: byte for byte those of before but for the maps, whole whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lightning_rad import sharding
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.modalities.gaze import unpacked
from lightning_rad.sharding import index
from lightning_rad.sharding.annotate import annotate
from lightning_rad.sharding.tar import walk
from tests.sharding.test_foreign import study, write_shards

Maps = list[npt.NDArray[np.uint8] | None]
DETAILS = {"checkpoint": "abc", "side": 8}


def map_of(data: bytes) -> npt.NDArray[np.uint8]:
    """A map that tells which picture it was made of."""
    noise = np.frombuffer(hashlib.sha256(data).digest() * 2, np.uint8).reshape(8, 8).copy()
    noise[0, 0] = 255
    return noise


class Predictor:
    """Counts its calls; fails at one of them; finds no map for some pictures."""

    def __init__(self, *, dies_at: int | None = None, blind_to: set[bytes] | None = None) -> None:
        self.dies_at, self.blind_to, self.asked = dies_at, blind_to or set(), list[int]()

    def __call__(self, images: Sequence[tuple[bytes, str]]) -> Maps:
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(len(images))
        for data, suffix in images:
            assert suffix in ("jpg", "png")
            assert cv2.imdecode(np.frombuffer(data, np.uint8), 0) is not None
        return [None if data in self.blind_to else map_of(data) for data, _ in images]


def members(folder: Path) -> dict[str, bytes]:
    """Every member of every shard, in order."""
    found = {}
    for tar in sorted(folder.glob("*.tar")):
        data = tar.read_bytes()
        found |= {f"{tar.name}/{m.name}": data[m.offset : m.offset + m.size] for m in walk(tar)}
    return found


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def annotated(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("annotated") / "out"
    annotate(tiny_shards, out, Predictor(), details=DETAILS)
    return out


def test_every_member_is_as_before_but_the_records_which_gain_their_maps(
    tiny_shards: Path, annotated: Path
) -> None:
    before, after = members(tiny_shards), members(annotated)
    assert list(before) == list(after)
    images = 0
    for name, data in before.items():
        if not name.endswith(".json") or name.endswith(".gaze.json"):
            assert after[name] == data, name
            continue
        body = json.loads(after[name])
        for entry in body["images"]:
            picture = before[name.removesuffix("json") + entry["file"]]
            want = map_of(picture) / map_of(picture).sum()
            np.testing.assert_allclose(unpacked(entry.pop("saliency")), want, atol=1e-7)
            images += 1
        assert body == json.loads(data)
    assert images == sum(s.images for s in load_manifest(tiny_shards).shards) > 20


def test_the_manifest_says_what_was_added_and_keeps_the_rest(
    tiny_shards: Path, annotated: Path
) -> None:
    before, after = load_manifest(tiny_shards), load_manifest(annotated)
    assert after.fields == (*before.fields, "saliency")
    assert (after.name, after.labels, after.prevalence) == (
        before.name,
        before.labels,
        before.prevalence,
    )
    counted = ("file", "split", "index", "patients", "studies", "images")
    for old, new in zip(before.shards, after.shards, strict=True):
        assert [getattr(old, k) for k in counted] == [getattr(new, k) for k in counted]
    assert after.digest != before.digest
    assert after.details["annotated"] == DETAILS | {"from": before.digest, "without_map": 0}
    assert {k: v for k, v in after.details.items() if k not in ("annotated", "plan")} == {
        k: v for k, v in before.details.items() if k != "plan"
    }


def test_annotated_shards_pass_verification(annotated: Path) -> None:
    report = sharding.verify([annotated], workers=1)
    assert report.ok, report.problems


def test_the_index_finds_every_picture(tiny_shards: Path, annotated: Path) -> None:
    from lightning_rad.data.source import ShardSource
    from lightning_rad.manifest import load_index

    sources = []
    for folder in (tiny_shards, annotated):
        manifest = load_manifest(folder)
        sources.append(ShardSource(load_index(manifest, manifest.shards)))
    for image in range(0, len(sources[0].index.images), 7):
        assert sources[0].image(image) == sources[1].image(image)


def test_how_many_are_predicted_at_a_time_changes_no_byte(
    tiny_shards: Path, annotated: Path, tmp_path: Path
) -> None:
    one = Predictor()
    annotate(tiny_shards, tmp_path / "out", one, details=DETAILS, batch=1)
    assert max(one.asked) < 5
    assert digests(tmp_path / "out") == digests(annotated)


def test_an_interrupted_run_goes_on_and_ends_as_an_undisturbed_one(
    tiny_shards: Path, annotated: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", Predictor()
    annotate(tiny_shards, tmp_path / "whole", whole, details=DETAILS)
    dying = Predictor(dies_at=len(whole.asked) // 2)
    with pytest.raises(KeyboardInterrupt):
        annotate(tiny_shards, out, dying, details=DETAILS)
    assert not (out / "manifest.json").exists()
    complete = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    assert complete
    again = Predictor()
    annotate(tiny_shards, out, again, details=DETAILS)
    assert 0 < sum(again.asked) < sum(whole.asked)
    assert {p: p.stat().st_mtime_ns for p in complete} == complete
    assert digests(out) == digests(annotated)
    idle = Predictor()
    annotate(tiny_shards, out, idle, details=DETAILS)
    assert not idle.asked


def test_an_image_that_cannot_be_decoded_has_no_map_and_is_counted_also_after_a_stop(
    tiny_shards: Path, annotated: Path, tmp_path: Path
) -> None:
    """What an earlier predictor said of it is gone, too."""
    pictures = [d for n, d in members(annotated).items() if n.endswith((".jpg", ".png"))]
    blind = {pictures[0], pictures[-1]}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        annotate(annotated, out, Predictor(dies_at=2, blind_to=blind), details=DETAILS, batch=20)
    made = annotate(annotated, out, Predictor(blind_to=blind), details=DETAILS, batch=20)
    assert made.details["annotated"]["without_map"] == 2
    records = [json.loads(d) for n, d in members(out).items() if n.endswith(".json")]
    entries = [e for body in records if "images" in body for e in body["images"]]
    assert sum("saliency" not in entry for entry in entries) == 2
    assert made.fields == load_manifest(annotated).fields


def test_other_details_are_another_set_and_replace_one_only_when_told(
    tiny_shards: Path, annotated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(annotated, out)
    with pytest.raises(ValueError, match=r"pass --overwrite to replace it"):
        annotate(tiny_shards, out, Predictor(), details={"checkpoint": "other"})
    assert digests(out) == digests(annotated)
    made = annotate(tiny_shards, out, Predictor(), details={"checkpoint": "other"}, overwrite=True)
    assert made.details["annotated"]["checkpoint"] == "other"


def test_a_finished_set_that_lost_a_shard_says_so(
    annotated: Path, tmp_path: Path, tiny_shards: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(annotated, out)
    lost = min(out.glob("*.tar"))
    lost.unlink()
    with pytest.raises(ValueError, match=f"{lost.name} or its index is lost"):
        annotate(tiny_shards, out, Predictor(), details=DETAILS)


def test_it_does_not_write_into_what_it_reads(tiny_shards: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    os.symlink(tiny_shards, link)
    for out in (tiny_shards, link):
        with pytest.raises(ValueError, match="is the folder that is read"):
            annotate(tiny_shards, out, Predictor(), details=DETAILS, overwrite=True)


def test_a_damaged_shard_is_not_copied(tiny_shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_shards, copy)
    tar = min(copy.glob("*.tar"))
    data = bytearray(tar.read_bytes())
    member = next(m for m in walk(tar) if m.name.endswith("jpg"))
    data[member.offset + member.size // 2] ^= 0xFF
    tar.chmod(0o644)
    tar.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"{tar.name}: not the shard that the manifest describes"):
        annotate(copy, tmp_path / "out", Predictor(), details=DETAILS)
    assert not (tmp_path / "out" / tar.name).exists()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_shards_of_other_software_get_maps_too_and_keep_all_else(tmp_path: Path) -> None:
    samples = [study(n) for n in range(3)]
    samples[0]["cls"], samples[1]["json"] = 7, {"images": [{"file": "x"}, {"file": "0.jpg"}]}
    del samples[2]["json"]
    write_shards(tmp_path / "w", samples)
    index(
        tmp_path / "w", patient_pattern=r"^p(\d+)/", salt_file=tmp_path / "salt", out=tmp_path / "i"
    )
    annotate(tmp_path / "i", tmp_path / "out", Predictor(), details=DETAILS)
    before, after = members(tmp_path / "w"), members(tmp_path / "out")
    records = {name for name in after if name.endswith(".json")}
    assert records == {f"shard-000000.tar/p{n // 2}/s{n}.json" for n in range(3)}
    assert {k: v for k, v in after.items() if k not in records} == {
        k: v for k, v in before.items() if k not in records
    }
    found = [json.loads(after[name]) for name in sorted(records)]
    assert found[0] | {"images": 0} == {"who": {"id": 0}, "images": 0}
    assert [len(body["images"]) for body in found] == [1, 2, 1]
    manifest = load_manifest(tmp_path / "out")
    assert "saliency" in manifest.fields
    assert sharding.verify([tmp_path / "out"], workers=1).problems == []
    there = load_index(manifest, manifest.shards)
    old = load_manifest(tmp_path / "i")
    assert (
        there.studies["patient"].tolist() == load_index(old, old.shards).studies["patient"].tolist()
    )
    source = ShardSource(there)
    for image in range(3):
        want = map_of(source.image(image)[0]).astype(float)
        got = unpacked(source.entry(image)["saliency"])
        np.testing.assert_allclose(got, want / want.sum(), rtol=1e-6)


@pytest.mark.parametrize("said", [[1], {"images": 3}, {"images": [3]}], ids=str)
def test_a_record_without_a_place_for_maps_is_named(tmp_path: Path, said: Any) -> None:
    write_shards(tmp_path / "w", [study(0, json=said)])
    index(tmp_path / "w")
    with pytest.raises(ValueError, match=r"the JSON of 'p0/s0' has no place for maps") as error:
        annotate(tmp_path / "w", tmp_path / "out", Predictor(), details=DETAILS)
    assert "\n" not in str(error.value)


def test_it_does_not_write_below_what_it_reads_nor_into_a_file(
    tiny_shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_shards, tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    before = sorted((tmp_path / "b").rglob("*"))
    for out in (tmp_path / "b" / "sub", tmp_path / "link" / "x" / "y"):
        with pytest.raises(ValueError, match=f"{out} lies in .*which is read"):
            annotate(tmp_path / "b", out, Predictor(), details=DETAILS, overwrite=True)
    assert sorted((tmp_path / "b").rglob("*")) == before
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(ValueError, match=f"{out}: a file, or in one; give a folder") as error:
            annotate(tmp_path / "b", out, Predictor(), details=DETAILS, overwrite=True)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_images_at_a_time_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^annotate\.batch: 0 "):
        annotate(tiny_shards, tmp_path / "out", Predictor(), details=DETAILS, batch=0)


def test_maps_of_too_few_pictures_are_an_error(tiny_shards: Path, tmp_path: Path) -> None:
    def careless(images: Any) -> Maps:
        return Predictor()(images)[1:]

    with pytest.raises(ValueError, match="shorter"):
        annotate(tiny_shards, tmp_path / "out", careless, details=DETAILS)
