"""What Lightning is given: lengths, evaluation rows over ranks, normalised views, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Trainer

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.labelled import LabelledImages
from lightning_rad.data.settings import Evaluation, Loading, Normalise, Shuffle
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import load_index, load_manifest

VIEWS = [RandomView(16, crop=Crop())] * 2


def data_of(manifest: Any, **changes: Any) -> RadiographData:
    settings: dict[str, Any] = {
        "views": VIEWS,
        "evaluation": Evaluation(WholeImage(16), batch=8),
        "global_batch": 8,
        "shuffle": Shuffle(groups=4, window=16),
        "loading": Loading(threads=0),
    }
    return RadiographData(manifest, **(settings | changes))


def set_up(data: RadiographData, stage: str = "fit") -> RadiographData:
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup(stage)
    return data


def labelled(shards: Path, rank: int = 0, ranks: int = 1, **settings: Any) -> LabelledImages:
    manifest = load_manifest(shards)
    source = ShardSource(load_index(manifest, manifest.of_split("val")))
    evaluation = Evaluation(WholeImage(16), batch=settings.pop("batch", 4))
    return LabelledImages(
        source, manifest.labels, evaluation, rank=rank, ranks=ranks, threads=2, **settings
    )


def test_the_length_is_whole_batches_and_constant(tiny_shards: Path) -> None:
    images = sum(s.images for s in load_manifest(tiny_shards).of_split("train"))
    loader = set_up(data_of(str(tiny_shards))).train_dataloader()
    assert len(loader) == images // 8


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_evaluate_every_image_in_equally_many_batches(tiny_shards: Path, ranks: int) -> None:
    shares = [labelled(tiny_shards, rank, ranks) for rank in range(ranks)]
    batches = [list(share) for share in shares]
    assert {len(b) for b in batches} == {len(shares[0])}
    assert len({tuple(len(x.image) for x in b) for b in batches}) == 1
    seen = torch.cat([x.image for b in batches for x in b])
    assert set(seen.tolist()) == set(
        range(sum(s.images for s in load_manifest(tiny_shards).of_split("val")))
    )
    whole = {
        int(i): (p, y)
        for x in labelled(tiny_shards)
        for i, p, y in zip(x.image, x.images, x.labels, strict=True)
    }
    for x in (x for b in batches for x in b):
        for i, pixels, labels in zip(x.image, x.images, x.labels, strict=True):
            assert torch.equal(pixels, whole[int(i)][0])
            assert torch.equal(labels.nan_to_num(-1), whole[int(i)][1].nan_to_num(-1))


def test_labels_are_those_of_the_record(tiny_shards: Path) -> None:
    manifest = load_manifest(tiny_shards)
    index = load_index(manifest, manifest.of_split("val"))
    source = ShardSource(index)
    for batch in labelled(tiny_shards):
        for image, values in zip(batch.image.tolist(), batch.labels, strict=True):
            row = index.images[image]
            known = source.record(int(row["study"]))["images"][row["ordinal"]]["labels"]
            wanted = [
                float("nan") if known.get(n) is None else float(known[n]) for n in manifest.labels
            ]
            assert np.array_equal(values.numpy(), np.array(wanted, np.float32), equal_nan=True)


def test_a_limit_takes_the_same_images_on_any_number_of_ranks(tiny_shards: Path) -> None:
    def chosen(ranks: int) -> set[int]:
        shares = [labelled(tiny_shards, r, ranks, most=6) for r in range(ranks)]
        return {int(i) for share in shares for x in share for i in x.image}

    assert chosen(1) == chosen(2) == chosen(4)
    assert len(chosen(1)) == 6


def test_an_unreadable_image_is_an_error_in_evaluation(tiny_shards: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(tiny_shards, tmp_path / "copy")
    manifest = load_manifest(copy)
    shard = manifest.of_split("val")[0]
    index = load_index(manifest, [shard])
    with (copy / shard.file).open("r+b") as file:
        file.seek(int(index.images[3]["offset"]))
        file.write(b"\0" * 40)
    with pytest.raises(BadSampleError, match=r"val-000000\.tar, key "):
        list(labelled(copy))


def test_views_reach_the_objective_as_normalised_numbers(tiny_shards: Path) -> None:
    data = set_up(data_of(str(tiny_shards), normalise=Normalise(mean=0.5, std=0.5)))
    raw = next(iter(data.train_dataloader()))
    greys = raw.pixels.float()
    batch = data.on_after_batch_transfer(raw, 0)
    assert batch.views.shape == (2, 8, 1, 16, 16)
    assert torch.allclose(batch.views, (greys / 255 - 0.5) / 0.5, atol=1e-6)
    assert batch.unit.shape == batch.patient.shape == (8,)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_views_rendered_on_the_device_are_those_of_the_threads(
    tiny_shards: Path, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here = set_up(data_of(str(tiny_shards)))
    there = set_up(data_of(str(tiny_shards), loading=Loading(threads=0, render="device")))
    a = here.on_after_batch_transfer(next(iter(here.train_dataloader())), 0)
    moved = move_data_to_device(next(iter(there.train_dataloader())), torch.device(device))
    b = there.on_after_batch_transfer(moved, 0)
    assert b.views.device.type == device
    one_grey = 1 / 255 / 0.25
    assert (a.views - b.views.cpu()).abs().max() <= one_grey * 1.001
    assert torch.equal(a.unit, b.unit.cpu())


def test_the_position_is_what_was_consumed_not_what_was_prefetched(tiny_shards: Path) -> None:
    data = set_up(data_of(str(tiny_shards), loading=Loading(threads=2, ahead=3)))
    batches = iter(data.train_dataloader())
    for _ in range(2):
        data.on_after_batch_transfer(next(batches), 0)
    assert data.state_dict()["positions"] == [16]


def test_a_step_that_failed_is_not_consumed(tiny_shards: Path) -> None:
    data = set_up(data_of(str(tiny_shards)))
    batches = iter(data.train_dataloader())
    progress: Any = data.trainer.fit_loop.epoch_loop.batch_progress.current
    for _ in range(3):
        data.on_after_batch_transfer(next(batches), 0)
        progress.ready += 1
        progress.processed += 1
    progress.processed -= 1
    assert data.state_dict()["positions"] == [16]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shuffle": Shuffle(groups=4, window=16, seed=9)}, "data.shuffle.seed"),
        ({"shuffle": Shuffle(groups=2, window=16)}, "data.shuffle.groups"),
        ({"shuffle": Shuffle(groups=4, window=17)}, "data.shuffle.window"),
        ({"shuffle": Shuffle(groups=4, window=16, images="independent")}, "data.shuffle.images"),
        ({"unit": "patient"}, "data.unit"),
    ],
)
def test_another_order_is_refused_on_resume(
    tiny_shards: Path, change: dict[str, Any], named: str
) -> None:
    state = set_up(data_of(str(tiny_shards))).state_dict()
    other = set_up(data_of(str(tiny_shards), **change))
    with pytest.raises(ValueError, match=f"cannot resume: .*{named}="):
        other.load_state_dict(state)


def test_moved_shards_are_the_same_data(tiny_shards: Path, tmp_path: Path) -> None:
    import shutil

    state = set_up(data_of(str(tiny_shards))).state_dict()
    moved = shutil.copytree(tiny_shards, tmp_path / "moved")
    set_up(data_of(str(moved))).load_state_dict(state)


def test_two_sets_mix_by_weight(tiny_shards: Path, other_shards: Path) -> None:
    data = set_up(data_of({str(tiny_shards): 1.0, str(other_shards): 1.0}, global_batch=16))
    first = sum(s.images for s in load_manifest(tiny_shards).of_split("train"))
    batch = next(iter(data.train_dataloader()))
    assert int((batch.unit < first).sum()) == 8
    assert batch.after == (8, 8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"global_batch": 10}, "nearest that is: 8"),
        ({"global_batch": 4096}, r"global_batch=4096 takes 4096 units of .* \(data\.unit=image\)"),
        ({"global_batch": 0}, r"data\.global_batch=0 .*data\.shuffle\.groups=4; .*: 4$"),
        (
            {"shuffle": Shuffle(groups=4, separation=50)},
            r"data\.unit=image: data\.shuffle\.separation .*got 50$",
        ),
        ({"manifest": "nowhere"}, "nowhere: no such manifest"),
        ({"unit": "lung"}, "image, study or patient"),
        ({"views": [*VIEWS, RandomView(8, crop=Crop())]}, r"one size, got \[8, 16\]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    tiny_shards: Path, settings: dict[str, Any], said: str
) -> None:
    manifest = settings.pop("manifest", str(tiny_shards))
    with pytest.raises(ValueError, match=said) as refusal:
        set_up(data_of(manifest, **settings))
    assert "\n" not in str(refusal.value)


def test_a_batch_larger_than_the_patients_allow_is_told_how_many_there_are(
    tiny_shards: Path,
) -> None:
    """What a batch of images would hold easily, a batch of patients does not."""
    manifest = load_manifest(tiny_shards)
    index = load_index(manifest, manifest.of_split("train"))
    patients, largest = len(set(index.studies["patient"].tolist())), len(index.images) // 3
    assert patients // 3 < 20 <= largest
    set_up(data_of(str(tiny_shards), global_batch=20))
    said = rf"global_batch=20 takes 20 units of .* {patients} units \(data\.unit=patient\)"
    with pytest.raises(ValueError, match=f"^data.{said}.* after {patients // 3} "):
        set_up(data_of(str(tiny_shards), global_batch=20, unit="patient"))


@pytest.mark.parametrize(("ranks", "near"), [(3, "2, 4"), (8, "4")])
def test_a_world_size_that_does_not_divide_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, ranks: int, near: str
) -> None:
    monkeypatch.setattr(Trainer, "world_size", ranks)
    said = rf"^{ranks} ranks do not divide data\.shuffle\.groups=4; .*: {near}$"
    with pytest.raises(ValueError, match=said):
        set_up(data_of("nowhere"))


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_an_objective_sees_before_the_first_step_what_a_batch_will_be(unit: Any) -> None:
    data = data_of("nowhere", unit=unit, global_batch=12)
    assert (data.unit, data.global_batch, len(data.views)) == (unit, 12, 2)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Shuffle(groups=0), "groups"),
        (lambda: Shuffle(window=0), "window"),
        (lambda: Shuffle(images="same"), "images"),
        (lambda: Shuffle(flip=-0.1), "flip"),
        (lambda: Shuffle(flip=1.5), "flip"),
        (lambda: Loading(threads=-1), "threads"),
        (lambda: Loading(ahead=0), "ahead"),
        (lambda: Loading(max_bad_fraction=1.5), "max_bad_fraction"),
        (lambda: Evaluation(WholeImage(8), batch=0), "batch"),
        (lambda: Evaluation(WholeImage(8), fit_images=0), "fit_images"),
        (lambda: Evaluation(WholeImage(8), studies=-1), "studies"),
        (lambda: Normalise(std=0.0), "std"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.\w+\.{named} must"):
        make()
