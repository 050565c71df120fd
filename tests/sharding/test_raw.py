"""The raw tier: the pixels a stream would decode and shrink, everything else as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from lightning_rad import sharding
from lightning_rad.data.decode import decode
from lightning_rad.data.reader import Reader
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import Manifest, load_index, load_manifest
from lightning_rad.sharding.builder import build_recipe
from lightning_rad.sharding.encode import shrink
from lightning_rad.sharding.raw import cache
from lightning_rad.sharding.recipe import ImageSettings
from lightning_rad.sharding.tar import walk
from tests.command import lightning_rad
from tests.sharding.phantoms import recipe

SIDE = 20
PICTURES = (".jpg", ".png", ".pgm")


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


def made(
    shards: Path, out: Path, side: int = SIDE, how: Callable[..., object] = decode
) -> Manifest:
    return cache(shards, out, how, short_side=side, threads=2, batch=7)


def reader_of(folder: Path) -> Reader:
    manifest = load_manifest(folder)
    return Reader([ShardSource(load_index(manifest, manifest.shards))])


@pytest.fixture(scope="module")
def raw(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "out"
    made(tiny_shards, out)
    return out


def test_a_stream_reads_what_it_would_decode_and_shrink(tiny_shards: Path, raw: Path) -> None:
    before, after = reader_of(tiny_shards), reader_of(raw)
    images = len(before.sources[0].index.images)
    assert images == len(after.sources[0].index.images) > 50
    for image in range(images):
        want = shrink(before.pixels(image), SIDE)
        assert min(want.shape) == SIDE
        np.testing.assert_array_equal(after.pixels(image), want)


def test_oblong_and_deep_pictures_are_shrunk_with_their_boxes(tmp_path: Path) -> None:
    """40 x 48 pixels, of 8 bits and of 12: neither sides nor scales may change places."""
    build_recipe(recipe(image=ImageSettings()), tmp_path / "phantoms", workers=1)
    made(tmp_path / "phantoms", tmp_path / "out", side=21)
    before, after = reader_of(tmp_path / "phantoms"), reader_of(tmp_path / "out")
    source, deep = after.sources[0], 0
    for image in range(len(source.index.images)):
        want = shrink(before.pixels(image), 21)
        assert want.shape == (21, 25)
        np.testing.assert_array_equal(after.pixels(image), want)
        old, new = before.sources[0].entry(image), source.entry(image)
        assert (new["height"], new["width"], new["bits"]) == (21, 25, 8)
        deep += old["bits"] == 12
        for was, box in zip(old["boxes"], new["boxes"], strict=True):
            by = {"x": 25 / 48, "y": 21 / 40, "w": 25 / 48, "h": 21 / 40}
            assert {k: box[k] for k in by} == {k: round(was[k] * by[k], 2) for k in by}
    assert deep > 3
    assert sharding.verify([tmp_path / "out"], workers=1).ok


def test_where_nothing_is_shrunk_the_pixels_are_those_of_the_shards(
    tiny_shards: Path, tmp_path: Path
) -> None:
    made(tiny_shards, tmp_path / "out", side=4096)
    before, after = reader_of(tiny_shards), reader_of(tmp_path / "out")
    for image in range(0, len(before.sources[0].index.images), 5):
        np.testing.assert_array_equal(before.pixels(image), after.pixels(image))


def test_pixels_are_looked_at_where_they_lie(raw: Path) -> None:
    pixels = reader_of(raw).pixels(0)
    assert not pixels.flags.owndata
    assert not pixels.flags.writeable
    base: object = pixels
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, memoryview)


def test_keys_order_reports_and_gaze_stay_and_records_say_what_changed(
    tiny_shards: Path, raw: Path
) -> None:
    before, after = members(tiny_shards), members(raw)
    renamed = [n.rpartition(".")[0] + ".pgm" if n.endswith(PICTURES) else n for n in before]
    assert renamed == list(after)
    boxes = 0
    for (name, data), (_, new) in zip(before.items(), after.items(), strict=True):
        if name.endswith(PICTURES):
            continue
        if not name.endswith(".json") or name.endswith(".gaze.json"):
            assert data == new, name
            continue
        old, body = json.loads(data), json.loads(new)
        for was, entry in zip(old["images"], body["images"], strict=True):
            assert entry["file"] == was["file"].replace("jpg", "pgm")
            assert min(entry["height"], entry["width"]) == SIDE
            by = {"x": entry["width"] / was["width"], "y": entry["height"] / was["height"]}
            by |= {"w": by["x"], "h": by["y"]}
            for box, wanted in zip(entry["boxes"], was["boxes"], strict=True):
                assert box.pop("label") == wanted["label"]
                assert box == {k: pytest.approx(wanted[k] * by[k], abs=0.011) for k in by}
                boxes += 1
            for key in ("view", "labels", "pixels", "fingerprint"):
                assert entry[key] == was[key]
    assert boxes > 10


def test_the_manifest_says_of_what_it_is_the_raw_tier(tiny_shards: Path, raw: Path) -> None:
    before, after = load_manifest(tiny_shards), load_manifest(raw)
    assert after.details["cached"] == {"from": before.digest, "short_side": SIDE, "undecoded": 0}
    assert (after.name, after.labels, after.fields) == (before.name, before.labels, before.fields)
    assert after.prevalence == before.prevalence
    counted = ("file", "split", "index", "patients", "studies", "images")
    for old, new in zip(before.shards, after.shards, strict=True):
        assert [getattr(old, k) for k in counted] == [getattr(new, k) for k in counted]


def test_raw_shards_pass_verification_and_a_truncated_image_does_not(
    raw: Path, tmp_path: Path
) -> None:
    report = sharding.verify([raw], workers=1)
    assert report.ok, report.problems
    assert report.images > 50
    copy = tmp_path / "copy"
    shutil.copytree(raw, copy)
    tar = min(copy.glob("*.tar"))
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes().replace(b"P5\n20 20\n", b"P5\n20 90\n", 1))
    assert not sharding.verify([copy], workers=1).ok


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_reader_of_webdataset_decodes_them(raw: Path) -> None:
    import webdataset

    for shard in load_manifest(raw).shards[:2]:
        for sample in webdataset.WebDataset(str(raw / shard.file), shardshuffle=False):
            picture = cv2.imdecode(np.frombuffer(sample["00.pgm"], np.uint8), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(picture, decode(sample["00.pgm"], "pgm"))


def test_a_raw_tier_killed_half_way_goes_on_and_ends_as_an_undisturbed_one(
    tiny_shards: Path, raw: Path, tmp_path: Path
) -> None:
    calls = 0

    def dying(data: bytes, suffix: str) -> npt.NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise KeyboardInterrupt
        return decode(data, suffix)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        made(tiny_shards, out, how=dying)
    assert not (out / "manifest.json").exists()
    complete = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    assert complete
    made(tiny_shards, out)
    assert {p: p.stat().st_mtime_ns for p in complete} == complete
    assert digests(out) == digests(raw)


def test_an_image_that_cannot_be_decoded_stays_as_it_was_and_is_counted(
    tiny_shards: Path, tmp_path: Path
) -> None:
    bad = next(d for n, d in members(tiny_shards).items() if n.endswith("jpg"))

    def blind(data: bytes, suffix: str) -> npt.NDArray[np.uint8]:
        if data == bad:
            raise ValueError("damaged")
        return decode(data, suffix)

    manifest = made(tiny_shards, tmp_path / "out", how=blind)
    assert manifest.details["cached"]["undecoded"] == 1
    kept = [d for n, d in members(tmp_path / "out").items() if n.endswith("jpg")]
    assert kept == [bad]
    assert sharding.verify([tmp_path / "out"], workers=1).ok


def test_a_box_that_would_vanish_keeps_an_extent_inside_its_image(
    tiny_shards: Path, tmp_path: Path
) -> None:
    """The smallest side there is: every box of it is within a few pixels, and sound."""
    made(tiny_shards, tmp_path / "out", side=1)
    assert sharding.verify([tmp_path / "out"], workers=1).ok


def test_other_sides_are_another_set(tiny_shards: Path, raw: Path) -> None:
    before = digests(raw)
    with pytest.raises(ValueError, match="pass --overwrite to replace it"):
        made(tiny_shards, raw, side=SIDE + 1)
    assert digests(raw) == before


def test_sides_and_threads_below_one_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    for wrong in ("short_side", "threads"):
        settings = {"short_side": 8, "threads": 1} | {wrong: 0}
        with pytest.raises(ValueError, match=rf"^cache\.{wrong}: 0 "):
            cache(tiny_shards, tmp_path / "out", decode, **settings)


def test_the_command_says_what_it_made(
    tiny_shards: Path, tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    lightning_rad("shards", "cache", str(tiny_shards), str(out), "--short_side", str(SIDE))
    assert "0 of them not readable" in capsys.readouterr().out
    assert digests(out) == digests(raw)
