"""A predictor of gaze from its configs to views that follow its maps, through the command line."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lightning_rad import checkpoints, sharding
from lightning_rad.data.reader import Reader
from lightning_rad.data.saliency import SaliencyMaps
from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.modalities.gaze import Map, Saliency, Source
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import CONFIGS, stack

GAZE = {"objective": "gaze_predictor_small", "view": "one_view_gaze_small"}
STEPS = 50
QUIET = (
    *("--trainer.precision", "32-true"),
    *("--trainer.max_epochs", "-1"),
    *("--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false"),
    *("--data.loading.threads", "1"),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 200 studies that a synthetic reader looked at."""
    folder = tmp_path_factory.mktemp("looked_at")
    sharding.synthesize(folder, patients=130, size=64, seed=7, images_per_shard=60, workers=1)
    return folder


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor after a short fit."""
    folder = tmp_path_factory.mktemp("predictor")
    given = (*stack(**GAZE), "--run", str(folder), "--data.manifest", str(shards), *QUIET)
    size = ("--data.global_batch", "32", "--trainer.max_steps", str(STEPS))
    lightning_rad("fit", *given, *size, "--trainer.limit_val_batches", "0")
    few = ("--probe.bootstrap.samples", "20", "--gaze_probe.bootstrap.samples", "400")
    lightning_rad("validate", *given, *few, "--ckpt_path", "last")
    return folder


@pytest.fixture(scope="module")
def half_looked_at(shards: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards with predicted maps of all images, and the gaze of every second study alone."""
    folder = tmp_path_factory.mktemp("annotated")
    how = ("--gaze", str(run / "checkpoints"))
    lightning_rad("shards", "annotate", str(shards), str(folder / "all"), *how)
    (folder / "half").mkdir()
    for tar in sorted((folder / "all").glob("*.tar")):
        with tarfile.open(tar) as old, tarfile.open(folder / "half" / tar.name, "w") as new:
            seen: list[str] = []
            for member in old:
                key = member.name.partition(".")[0]
                seen += [key] if key not in seen else []
                body = old.extractfile(member)
                assert body is not None
                if len(seen) % 2 or not member.name.endswith(".gaze.json"):
                    new.addfile(member, io.BytesIO(body.read()))
    sharding.index(folder / "half")
    return folder / "half"


@pytest.mark.slow
def test_it_foretells_gaze_better_than_the_mean_map_of_the_other_patients(run: Path) -> None:
    """On the images of patients it has not seen, and so surely that the interval says it."""
    body = json.loads((run / "gaze_val.json").read_text())
    for name, better in (("kld", -1), ("nss", 1), ("cc", 1), ("sim", 1), ("auc", 1)):
        found = body["measures"][name]
        assert found["n"] > 30
        ends = [better * found["gain"][end] for end in ("low", "high")]
        assert min(ends) > 0, name
    assert body["measures"]["kld"]["predicted"]["value"] < 1.1


@pytest.mark.slow
def test_its_checkpoint_says_how_images_were_shown(run: Path) -> None:
    found = checkpoints.read(checkpoints.resolve(run / "checkpoints"))["gaze"]
    assert found == {"size": 64, "mean": 0.5, "std": 0.25, "side": 32, "spread": 0.03}


@pytest.mark.slow
def test_maps_written_into_shards_are_as_good_as_those_of_the_probe(
    run: Path, half_looked_at: Path
) -> None:
    """To their 8 bits: correlation with the recorded ones, image by image."""
    manifest = load_manifest(half_looked_at)
    reader = Reader([ShardSource(load_index(manifest, manifest.of_split("val")))])
    images = range(len(reader.sources[0].index.images))
    recorded, predicted = (maps(reader, images, source) for source in ("recorded", "predicted"))
    assert all(map_ is not None for map_ in predicted)
    pairs = [(a, b) for a, b in zip(recorded, predicted, strict=True) if a is not None]
    assert 0.3 < len(pairs) / len(recorded) < 0.7
    found = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])  # type: ignore[union-attr]
    cc = json.loads((run / "gaze_val.json").read_text())["measures"]["cc"]
    assert cc["predicted"]["low"] - 0.05 < found < cc["predicted"]["high"] + 0.05  # of other halves


@pytest.mark.slow
def test_both_reads_what_was_recorded_and_else_what_was_predicted(half_looked_at: Path) -> None:
    manifest = load_manifest(half_looked_at)
    reader = Reader([ShardSource(load_index(manifest, manifest.of_split("train")))])
    images = range(60)
    both, recorded, predicted = (
        maps(reader, images, source) for source in ("both", "recorded", "predicted")
    )
    for mine, first, second in zip(both, recorded, predicted, strict=True):
        expected = second if first is None else first
        assert mine is not None
        assert expected is not None
        assert np.array_equal(mine, expected)


def maps(reader: Reader, images: Any, source: Source) -> list[Map | None]:
    return SaliencyMaps(reader).of(images, Saliency(source, side=32, spread=0.03))


@pytest.mark.slow
@pytest.mark.parametrize(("source", "blank"), [("both", False), ("recorded", True)])
def test_a_focus_view_has_a_map_of_every_image_where_it_reads_both(
    half_looked_at: Path, tmp_path: Path, source: str, blank: bool
) -> None:
    view = yaml.safe_load((CONFIGS / "view/two_view_focus_small.yaml").read_text())
    for part in view["data"]["views"]:
        part["init_args"]["saliency"]["source"] = source
    (tmp_path / "view.yaml").write_text(yaml.safe_dump(view))
    given = [*stack(view="two_view_focus_small"), "-c", str(tmp_path / "view.yaml"), *QUIET]
    small = ("--model.init_args.encoder.init_args.name", "test_resnet")
    few = ("--data.global_batch", "16", "--trainer.max_steps", "3", "--trainer.log_every_n_steps")
    no_probe = ("--trainer.limit_val_batches", "0")
    of = ("--data.manifest", str(half_looked_at), "--run", str(tmp_path / "run"))
    lightning_rad("fit", *given, *of, *small, *few, "1", *no_probe)
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = [row.get("data/focus_blank") for row in csv.DictReader(file)]
    shares = [float(share) for share in rows if share]
    assert len(shares) >= 2
    assert any(shares) == blank
    assert max(shares) < 1


def test_shards_that_nobody_looked_at_are_refused(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "unseen"
    folder.mkdir()
    for tar in tiny_shards.glob("*.tar"):
        with tarfile.open(tar) as old, tarfile.open(folder / tar.name, "w") as new:
            for member in old:
                if not member.name.endswith(".gaze.json"):
                    new.addfile(member, old.extractfile(member))
    sharding.index(folder)
    given = (*stack(**GAZE), "--run", str(tmp_path / "run"), "--data.manifest", str(folder))
    said = refused(capsys, "fit", *given, *QUIET, "--data.global_batch", "16")
    assert "gaze" in said
    assert str(folder) in said
    assert len(said.splitlines()) == 1


def test_16_bit_parameters_learn_from_gaze(tiny_shards: Path, tmp_path: Path) -> None:
    given = (*stack(**GAZE), "--run", str(tmp_path / "run"), "--data.manifest", str(tiny_shards))
    size = ("--data.global_batch", "16", "--trainer.max_steps", "2")
    how = ("--model.init_args.encoder.init_args.name", "test_resnet", *QUIET)
    low = ("--trainer.precision", "bf16-true", "--trainer.limit_val_batches", "0")
    lightning_rad("fit", *given, *size, *how, *low)
    state = checkpoints.read(checkpoints.resolve(tmp_path / "run/checkpoints"))["state_dict"]
    assert state["decoder.score.weight"].dtype == torch.bfloat16
    assert all(value.isfinite().all() for value in state.values())
