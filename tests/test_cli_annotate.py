"""`lightning-rad shards annotate`: the maps of the predictor of a checkpoint, and only of one."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.decode import decode
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.gaze import unpacked
from lightning_rad.nn.pretrained import CONFIG_ENTRY
from lightning_rad.sharding.tar import walk
from tests.checkpoints.trees import saved
from tests.command import lightning_rad, refused
from tests.gaze_checkpoints import CONFIG, ENCODER, MEAN, SIDE, SIZE, STD, predictor, tree


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("gaze"), 1, tree())


@pytest.fixture(scope="module")
def annotated(
    checkpoint: Path, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("annotated") / "out"
    lightning_rad("shards", "annotate", str(tiny_shards), str(out), "--gaze", str(checkpoint))
    return out


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def pictures(folder: Path) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
    """Encoded images, their suffixes and their records."""
    for tar in sorted(folder.glob("*.tar")):
        data = tar.read_bytes()
        members = {m.name: data[m.offset : m.offset + m.size] for m in walk(tar)}
        for name, body in members.items():
            if name.endswith(".json") and not name.endswith(".gaze.json"):
                for entry in json.loads(body)["images"]:
                    file = name.removesuffix("json") + entry["file"]
                    yield members[file], entry["file"].rpartition(".")[2], entry


def test_each_record_has_the_map_that_the_checkpoint_makes_of_its_image(annotated: Path) -> None:
    made = predictor()
    seen = 0
    for data, suffix, entry in pictures(annotated):
        greys = decode(data, suffix)
        assert greys.shape == (SIZE, SIZE)  # no letterbox and no change of size: shown as it is
        numbers = (torch.from_numpy(greys).float() / 255 - MEAN) / STD
        with torch.no_grad():
            expected = made.maps_of(numbers[None, None])[0].numpy()
        found = unpacked(entry["saliency"])
        np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=0.51 / 255)
        assert found.max() > 1.5 / SIDE**2  # and it is not flat
        seen += 1
    assert seen > 50


def test_the_rest_is_as_before_and_the_shards_are_sound(
    annotated: Path, tiny_shards: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for (one, _, _), (other, _, _) in zip(pictures(annotated), pictures(tiny_shards), strict=True):
        assert one == other
    manifest = load_manifest(annotated)
    assert manifest.fields == (*load_manifest(tiny_shards).fields, "saliency")
    details = manifest.details["annotated"]
    assert details["size"] == SIZE
    assert details["spread"] == 0.03
    assert str(checkpoint) not in json.dumps(manifest.details)
    lightning_rad("shards", "verify", str(annotated))
    assert ", 0 problems" in capsys.readouterr().out


def test_it_ends_with_a_summary_and_a_second_run_does_nothing(
    annotated: Path, tiny_shards: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in annotated.iterdir()}
    moved = checkpoint.parent  # a folder of checkpoints: the newest of them, the same
    lightning_rad("shards", "annotate", str(tiny_shards), str(annotated), "--gaze", str(moved))
    images = sum(shard.images for shard in load_manifest(tiny_shards).shards)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{annotated}: {images} images, 0 of them without a map"
    assert {p: p.stat().st_mtime_ns for p in annotated.iterdir()} == before


def test_threads_change_no_byte(
    annotated: Path, tiny_shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    how = ("--gaze", str(checkpoint), "--threads", "1", "--device", "cpu")
    lightning_rad("shards", "annotate", str(tiny_shards), out, *how)
    assert digests(tmp_path / "out") == digests(annotated)


def test_other_weights_are_another_set(
    annotated: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", saved(tmp_path, 1, tree(seed=1))
    shutil.copytree(annotated, out)
    line = ("shards", "annotate", str(tiny_shards), str(out), "--gaze", str(other))
    assert "pass --overwrite to replace it" in refused(capsys, *line)
    assert digests(out) == digests(annotated)
    lightning_rad(*line, "--overwrite", "true")
    assert digests(out) != digests(annotated)


DYING = """
import os, signal
from itertools import count
from lightning_rad.cli import annotate, main

calls, predict = count(), annotate.Maps.__call__

def dying(maps, images):
    if next(calls) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(maps, images)

annotate.Maps.__call__ = dying
main()
"""
"""The command line of a process that dies, as by `kill -9`, in the middle of a shard."""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    tiny_shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def line(out: str) -> list[str]:
        how = ["--gaze", str(checkpoint), "--batch", "1", "--device", "cpu"]
        return ["shards", "annotate", str(tiny_shards), str(tmp_path / out), *how]

    lightning_rad(*line("undisturbed"))
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", DYING, *line("out")], check=False)
    assert ended.returncode == -signal.SIGKILL
    there = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    assert there
    assert not (out / "manifest.json").exists()
    lightning_rad(*line("out"))
    assert digests(out) == digests(tmp_path / "undisturbed")
    assert {p: p.stat().st_mtime_ns for p in there} == there


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "SimCLR"}, "is of SimCLR, not of GazePredictor"),
        ({"objective": None}, "is of None, not of GazePredictor"),
        ({"gaze": None}, "has no gaze: it was not written by `lightning-rad fit`"),
        ({CONFIG_ENTRY: None}, f"has no {CONFIG_ENTRY}: it was not written"),
        ({CONFIG_ENTRY: CONFIG | {"init_args": {"encoder": ENCODER}}}, "its config does not fit"),
    ],
)
def test_a_checkpoint_of_anything_else_is_named(
    changes: dict[str, Any],
    said: str,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(tmp_path, 1, tree(**changes))
    out = tmp_path / "out"
    told = refused(capsys, "shards", "annotate", str(tiny_shards), str(out), "--gaze", str(path))
    assert f"annotate: {path}" in told
    assert said in told
    assert len(told.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "annotate.threads: 0 is not at least 1"),
        (["--device", "abacus"], "annotate.device: 'abacus'"),
        (["--gaze", "nowhere"], "nowhere: there is no such checkpoint"),
    ],
)
def test_what_does_not_go_is_named(
    options: list[str],
    said: str,
    tiny_shards: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ("shards", "annotate", str(tiny_shards), str(tmp_path / "out"))
    assert said in refused(capsys, *line, "--gaze", str(checkpoint), *options)


def test_the_source_is_not_written_into(
    tiny_shards: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("shards", "annotate", str(tiny_shards), str(tiny_shards), "--gaze", str(checkpoint))
    assert "is the folder that is read" in refused(capsys, *line)
