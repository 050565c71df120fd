"""MICLe: which two images of a bag are paired, and which rows repel which.

Letters in names are those of the conformance list that the method was built against.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.units import Images, Unit
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import Index, load_index, load_manifest
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.micle import MICLe
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.schema import ViewBatch
from tests.objectives.fixed import FixedBatches, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

ROWS, TEMPERATURE = 8, 0.2
GROUPS = [5, 6, 0, 5, 6, 5, 0, 7]
"""Patients of the rows of a batch: two of several bags, which cross ranks, and two unknown."""


def parts(norm: Norm = "none") -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "encoder": SmallEncoder(norm),
        "projector": lambda width: Projector(width, out_features=8, norm=norm),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "temperature": TEMPERATURE,
    }


def micle(norm: Norm = "none", **changes: Any) -> MICLe:
    return MICLe(**(parts(norm) | changes)).double()


def simclr(norm: Norm = "none", **changes: Any) -> SimCLR:
    return SimCLR(**(parts(norm) | changes)).double()


def batch(patients: list[int], views: int = 2) -> ViewBatch:
    [made] = random_batches(1, rows=len(patients), views=views)
    made.patient = torch.tensor(patients)
    return made


def loss(objective: MICLe | SimCLR, given_batch: ViewBatch) -> Tensor:
    [term] = objective.terms(objective.embed(given_batch), given_batch).values()
    return term


# --- which images are paired


def stream(shards: Path, unit: Unit, views: int = 2, images: Images = "distinct") -> RadiographData:
    data = RadiographData(
        str(shards),
        views=[RandomView(16, crop=Crop())] * views,
        evaluation=Evaluation(WholeImage(16), batch=8),
        global_batch=4,
        unit=unit,
        shuffle=Shuffle(groups=4, window=16, seed=3, images=images),
        loading=Loading(threads=0),
    )
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    return data


def batches(data: RadiographData, epochs: int) -> list[ViewBatch]:
    loader = data.train_dataloader()
    numbers = range(epochs * len(loader))
    drawn = [batch for _, batch in zip(numbers, loader, strict=False)]
    return [data.on_after_batch_transfer(batch, 0) for batch in drawn]


def bags(shards: Path, unit: Unit) -> dict[int, set[int]]:
    """The bag that each image is in: image number to all image numbers of its bag."""
    index = load_train_index(shards)
    owner = index.images["study"].astype(int)
    if unit == "patient":
        owner = index.studies["patient"][owner]
    members = defaultdict(set)
    for image, name in enumerate(owner.tolist()):
        members[name].add(image)
    return {image: members[name] for image, name in enumerate(owner.tolist())}


def load_train_index(shards: Path) -> Index:
    manifest = load_manifest(shards)
    return load_index(manifest, manifest.of_split("train"))


@pytest.mark.parametrize("unit", ["study", "patient"])
def test_micle_a_two_images_of_a_bag_are_paired_and_never_one_with_itself(
    tiny_shards: Path, unit: Unit
) -> None:
    bag_of: dict[int, set[int]] = bags(tiny_shards, unit)
    shown = set()
    for drawn in batches(stream(tiny_shards, unit), epochs=4):
        for a, b in drawn.image.T.tolist():
            assert b in bag_of[a]
            assert (a != b) == (len(bag_of[a]) > 1)
            shown.add(frozenset((a, b)))
    pairs = {pair for pair in shown if len(pair) == 2}
    assert len(pairs) >= 15
    if unit == "patient":  # some pairs are of two examinations
        study = load_train_index(tiny_shards).images["study"]
        assert any(len(set(study[list(pair)])) == 2 for pair in pairs)


@pytest.mark.parametrize("unit", ["study", "patient"])
def test_micle_b_a_bag_of_one_image_gives_two_views_of_it(tiny_shards: Path, unit: Unit) -> None:
    bag_of = bags(tiny_shards, unit)
    single = 0
    for drawn in batches(stream(tiny_shards, unit), epochs=2):
        for row, (a, b) in enumerate(drawn.image.T.tolist()):
            if len(bag_of[a]) > 1:
                continue
            single += 1
            assert a == b
            assert not torch.equal(drawn.views[0, row], drawn.views[1, row])
    assert single >= 5


def test_micle_c_both_members_are_augmented_each_on_its_own(tiny_shards: Path) -> None:
    """The same image, shown as first and as second member of bags, is never rendered alike."""
    shown: dict[int, list[Tensor]] = defaultdict(list)
    for drawn in batches(stream(tiny_shards, "patient"), epochs=3):
        for view in range(2):
            for row, image in enumerate(drawn.image[view].tolist()):
                shown[image].append(drawn.views[view, row])
    often = [views for views in shown.values() if len(views) > 2]
    assert len(often) > 10
    for views in often:
        flat = torch.stack(views).flatten(1)
        distance = torch.cdist(flat, flat) + torch.eye(len(flat)) * 1e9
        assert distance.min() > 1e-3


@pytest.mark.parametrize("unit", ["study", "patient"])
def test_a_patient_with_a_thousand_images_is_one_bag_like_another(
    tiny_shards: Path, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it is drawn two of its images are shown, and one batch holds it once."""
    index = load_train_index(tiny_shards)
    images = np.concatenate([index.images, np.repeat(index.images[:1], 1000)])
    merged = Index(index.files, index.studies, images, index.shard_of_study)
    monkeypatch.setattr("lightning_rad.data.mixture.load_index", lambda *_: merged)
    owner = int(index.studies["patient"].view(np.int64)[images[0]["study"]])
    drawn = batches(stream(tiny_shards, unit), epochs=3)
    seen = [
        pair
        for one in drawn
        for pair, patient in zip(one.image.T.tolist(), one.patient.tolist(), strict=True)
        if patient == owner
    ]
    assert seen
    assert all(a != b for a, b in seen if max(a, b) >= len(index.images))
    assert any(a != b for a, b in seen)
    if unit == "patient":
        assert all(one.patient.tolist().count(owner) <= 1 for one in drawn)
        assert len({tuple(pair) for pair in seen}) == len(seen)


# --- which rows repel which


def expected(objective: MICLe, given_batch: ViewBatch, *, groups: bool) -> float:
    """The definition, row by row, over a set of rows that repel."""
    z = objective.embed(given_batch)["rows"].flatten(0, 1).detach()
    z = z / z.norm(dim=1, keepdim=True)
    views, rows = given_batch.views.shape[:2]
    patients, total = given_batch.patient.tolist(), 0.0
    for i in range(views * rows):
        row, others = i % rows, [j for j in range(views * rows) if j != i]
        positives = [j for j in others if j % rows == row]
        known = groups and patients[row] != 0
        repel = [
            j
            for j in others
            if j in positives or not (known and patients[j % rows] == patients[row])
        ]
        below = sum(float((z[i] @ z[j] / TEMPERATURE).exp()) for j in repel)
        for j in positives:
            above = float((z[i] @ z[j] / TEMPERATURE).exp())
            total -= float(np.log(above / below)) / len(positives)
    return total / (views * rows)


@pytest.mark.parametrize("views", [2, 3])
def test_micle_d_rows_of_the_same_patient_in_other_bags_do_not_repel(views: int) -> None:
    objective, given_batch = micle(), batch(GROUPS, views)
    wanted = expected(objective, given_batch, groups=True)
    assert wanted < expected(objective, given_batch, groups=False) - 1e-3
    assert loss(objective, given_batch).item() == pytest.approx(wanted, rel=1e-9)


def test_micle_d_no_gradient_passes_between_bags_of_one_patient() -> None:
    """Each of three bags of one patient sees its pair only: all rows stand alone."""
    objective, given_batch = micle(), batch([5, 5, 5])
    rows = objective.embed(given_batch)["rows"].detach().requires_grad_()
    [term] = objective.terms({"rows": rows}, given_batch).values()
    term.backward()
    assert term.item() == pytest.approx(0.0, abs=1e-12)  # only the positive is left: log 1
    assert rows.grad is not None
    assert rows.grad.abs().max() < 1e-12


def test_faithful_keeps_rows_of_the_same_patient_as_negatives() -> None:
    objective, given_batch = micle(faithful=True), batch(GROUPS)
    wanted = expected(objective, given_batch, groups=False)
    assert loss(objective, given_batch).item() == pytest.approx(wanted, rel=1e-9)


def test_an_unknown_patient_excludes_nothing() -> None:
    objective = micle()
    unknown, all_different = batch([0] * ROWS), batch(list(range(1, ROWS + 1)))
    assert torch.equal(loss(objective, unknown), loss(objective, all_different))
    wanted = expected(objective, unknown, groups=False)
    assert loss(objective, unknown).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("known", [True, False])
def test_micle_e_with_bags_of_one_image_it_is_simclr_bit_for_bit(norm: Norm, known: bool) -> None:
    """Three steps: every weight and every statistic."""
    mine, theirs = micle(norm), simclr(norm)
    given = random_batches(3)
    for one in given:
        one.patient = torch.arange(1, ROWS + 1) * int(known)
    assert torch.equal(loss(mine, given[0]), loss(theirs, given[0]))
    ours, others = fit_steps(mine, given, unit="patient"), fit_steps(theirs, given)
    assert len(ours) == 3
    for a, b in zip(ours, others, strict=True):
        assert a.terms == b.terms
        assert a.state.keys() == b.state.keys()
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def test_micle_e_a_set_of_single_images_is_streamed_as_simclr_streams_it(
    tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = load_train_index(tiny_shards)
    patient = index.studies["patient"][index.images["study"]]
    _, first = np.unique(patient, return_index=True)
    first.sort()
    studies, shards = index.images["study"][first], index.shard_of_study
    images = index.images[first].copy()
    images["study"] = np.arange(len(first))
    few = Index(index.files, index.studies[studies], images, shards[studies])
    monkeypatch.setattr("lightning_rad.data.mixture.load_index", lambda *_: few)
    by_unit: dict[str, list[ViewBatch]] = {
        unit: batches(stream(tiny_shards, unit), epochs=1)  # type: ignore[arg-type]
        for unit in ("image", "study", "patient")
    }
    for one, study, whole in zip(*by_unit.values(), strict=True):
        for other in (study, whole):
            assert torch.equal(one.views, other.views)
            assert torch.equal(one.image, other.image)
            assert torch.equal(loss(micle().float(), other), loss(simclr().float(), one))


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize("views", [2, 3])
def test_same_loss_and_gradient_on_any_number_of_ranks_with_patients_across_them(
    ranks: int, faithful: bool, views: int
) -> None:
    assert_alike_on_ranks(partial(micle, faithful=faithful), batch(GROUPS, views), ranks)


@pytest.mark.parametrize("faithful", [True, False])
def test_rows_that_go_round_a_ring_give_the_same_with_patients_across_ranks(faithful: bool) -> None:
    make = partial(micle, faithful=faithful, exchange="ring")
    assert_alike_on_ranks(make, batch(GROUPS), 4)
    assert loss(make(), batch(GROUPS)).item() == pytest.approx(
        loss(micle(faithful=faithful), batch(GROUPS)).item(), rel=1e-12
    )


# --- refusals


def test_a_stream_of_single_images_is_refused_by_name() -> None:
    said = r"data\.unit must be study or patient, it is image$"
    with pytest.raises(ValueError, match=said):
        fit_steps(micle(), random_batches(1), unit="image")
    fit_steps(micle(), random_batches(1), unit="study")


@pytest.mark.parametrize("unit", ["study", "patient"])
def test_a_stream_that_may_pair_an_image_with_itself_is_refused_by_name(
    unit: Unit, tiny_shards: Path
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match=r"data\.shuffle\.images must be distinct, it is indep"):
        trainer.fit(micle(), datamodule=stream(tiny_shards, unit, images="independent"))


def test_without_patients_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FixedBatches, "gives", frozenset({"views", "unit"}))
    with pytest.raises(ValueError, match=r"^MICLe needs the batch field\(s\) \['patient'\]"):
        fit_steps(micle(), random_batches(1), unit="study")
