"""A batch that is embedded in parts: the loss, the gradient and the run of the whole batch.

The whole batch's are the reference throughout; where modules draw random numbers it is the same
sum written out as one ordinary graph.
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.parts import embed_in_parts
from lightning_rad.schema import ViewBatch
from tests.objectives.evidence import suited as with_all
from tests.objectives.evidence import views_of
from tests.objectives.fixed import random_batches, with_reports
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.test_barlow_twins import barlow_twins
from tests.objectives.test_byol import byol
from tests.objectives.test_gaze_predictor import predictor
from tests.objectives.test_image_report import image_report
from tests.objectives.test_micle import micle, simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_refers import refers
from tests.objectives.test_vicreg import vicreg

Make = Callable[..., Any]
Gradient = dict[str, Tensor]
ROWS = 8


def moco_v3_layer() -> Any:
    def head(width: int) -> Projector:
        return Projector(width, out_features=8, norm="layer")

    return moco_v3(projector=head, predictor=head)


MAKES: dict[str, Make] = {
    "simclr": simclr,
    "micle": micle,
    "moco": moco,
    "moco_v3": moco_v3,
    "moco_v3_layer": moco_v3_layer,
    "byol": byol,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "image_report": image_report,
    "image_report_siglip": lambda: image_report(form="siglip"),
    "refers": refers,
    "knowledge_contrast": knowledge_contrast,
    "knowledge_contrast_grad_cam": lambda: knowledge_contrast(averages=False),
    "gaze_predictor": predictor,
}


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKES[request.param]


def given(rows: int = ROWS, *, views: int = 2) -> ViewBatch:
    """Patients of several bags, for MICLe; two reports of one text."""
    [batch] = with_reports(random_batches(1, rows=rows, views=views), same=[(0, 4)])
    batch.patient = torch.tensor([5, 6, 0, 5, 6, 5, 0, 7])[:rows]
    return batch


def suited(make: Make) -> ViewBatch:
    """Of as many views as the objective asks for, with what it reads of them."""
    objective = make()
    [batch] = with_all(objective, [given(views=views_of(objective))])
    return batch


def rows_of(batch: ViewBatch, first: int, end: int) -> ViewBatch:
    return batch.rows(slice(first, end))


def total(objective: Any, embeddings: dict[str, Tensor], batch: ViewBatch) -> Tensor:
    return torch.stack(list(objective.terms(embeddings, batch).values())).sum()


def gradient(objective: Any) -> Gradient:
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def loss_and_gradient(
    objective: Any, batch: ViewBatch, units: int | None
) -> tuple[Tensor, Gradient]:
    loss = total(objective, embed_in_parts(objective.embed, batch, units), batch)
    loss.backward()
    return loss.detach(), gradient(objective)


def assert_same(mine: Gradient, theirs: Gradient, rtol: float = 1e-12) -> None:
    """To a part of the largest entry of each tensor."""
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        largest = float(value.abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(
            mine[name], value, rtol=0, atol=rtol * (largest + 1e-3), msg=name
        )


@pytest.mark.parametrize("units", [1, 3, 7])
def test_loss_and_gradient_are_those_of_the_whole_batch(make: Make, units: int) -> None:
    loss, whole = loss_and_gradient(make(), suited(make), None)
    mine, parts = loss_and_gradient(make(), suited(make), units)
    assert float(mine) == pytest.approx(float(loss), rel=1e-13)
    assert {name for name in whole if name.startswith("encoder")}
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3
    assert_same(parts, whole)


def test_a_batch_of_parts_is_not_the_mean_of_smaller_batches() -> None:
    """What accumulation gives, and what the tests here must tell from it."""
    batch = given()
    _, whole = loss_and_gradient(simclr(), batch, None)
    objective = simclr()
    for half in (rows_of(batch, 0, 4), rows_of(batch, 4, 8)):
        (total(objective, objective.embed(half), half) / 2).backward()
    assert any(not torch.allclose(g, whole[n], rtol=1e-2) for n, g in gradient(objective).items())


def test_three_views_come_apart_and_together_in_their_places() -> None:
    objective, batch = simclr(), given(views=3)
    whole = objective.embed(batch)["rows"]
    parts = embed_in_parts(objective.embed, batch, 3)["rows"]
    assert parts.shape == (3, ROWS, 8)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)


def test_every_field_of_a_batch_is_cut_alike() -> None:
    batch, seen = given(5), []
    embed_in_parts(lambda part: seen.append(part) or {"x": part.views}, batch, 2)
    assert [len(part.unit) for part in seen] == [2, 2, 1]
    for field, along in (("views", 1), ("unit", 0), ("patient", 0), ("image", 1)):
        joined = torch.cat([getattr(part, field) for part in seen], along)
        assert torch.equal(joined, getattr(batch, field)), field


def test_reports_are_cut_with_the_rest() -> None:
    [batch], seen = with_reports([given(5)]), []
    embed_in_parts(lambda part: seen.append(part.report) or {"x": part.views}, batch, 2)
    assert [len(part.hash) for part in seen] == [2, 2, 1]
    assert torch.equal(torch.cat([part.hash for part in seen]), batch.report.hash)
    assert torch.equal(torch.cat([part.flipped for part in seen]), batch.report.flipped)
    for name, tokens in batch.report.tokens.items():
        assert torch.equal(torch.cat([part.tokens[name] for part in seen]), tokens)


class ReadsReports(torch.nn.Module):
    """The least that looks at images and reports alike: rows beside the mean of their words."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Linear(256, 8, dtype=torch.float64)
        self.words = torch.nn.Embedding(20, 8, dtype=torch.float64)
        self.drop = torch.nn.Dropout(0.3)

    def embed(self, batch: ViewBatch) -> dict[str, Tensor]:
        tokens = batch.report.tokens["text"]
        real = (tokens >= 0)[..., None]
        said = (self.words(tokens.clamp_min(0)) * real).sum(1) / real.sum(1)
        return {
            "image": self.image(self.drop(batch.views.flatten(2))),
            "text": self.drop(said)[None],
        }

    def terms(self, embeddings: dict[str, Tensor], batch: ViewBatch) -> dict[str, Tensor]:
        """Every unit against every other, but those of one report."""
        image, text = embeddings["image"].mean(0), embeddings["text"][0]
        other = batch.report.hash[:, None] != batch.report.hash
        logits = (image @ text.T).masked_fill(~other & ~torch.eye(len(text)).bool(), -1e9)
        return {"contrast": torch.nn.functional.cross_entropy(logits, torch.arange(len(text)))}


@pytest.mark.parametrize("units", [1, 3, 7])
def test_with_reports_loss_and_gradient_are_those_of_the_whole_batch(units: int) -> None:
    [batch] = with_reports([given()], same=[(0, 5), (2, 3, 7)])
    whole_loss, whole = loss_and_gradient(ReadsReports().eval(), batch, None)
    loss, parts = loss_and_gradient(ReadsReports().eval(), batch, units)
    assert float(loss) == pytest.approx(float(whole_loss), rel=1e-13)
    assert whole.keys() == {"image.weight", "image.bias", "words.weight"}
    assert_same(parts, whole)


def test_with_reports_both_passes_draw_the_same() -> None:
    [batch], objective = with_reports([given()]), ReadsReports()
    torch.manual_seed(7)
    loss, parts = loss_and_gradient(objective, batch, 3)
    objective = ReadsReports()
    torch.manual_seed(7)
    made = [objective.embed(rows_of(batch, first, first + 3)) for first in (0, 3, 6)]
    joined = {name: torch.cat([one[name] for one in made], dim=1) for name in made[0]}
    expected = total(objective, joined, batch)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-13)
    assert_same(parts, gradient(objective))


def noisy(make: Make, p: float = 0.4) -> Any:
    objective = make()
    objective.encoder.dropout.p = p
    return objective


def test_both_passes_draw_the_same(make: Make) -> None:
    """Against the same draws in one graph that keeps everything."""
    batch, objective = suited(make), noisy(make)
    torch.manual_seed(7)
    loss, parts = loss_and_gradient(objective, batch, 3)
    drawn_next = torch.rand(())

    objective = noisy(make)
    torch.manual_seed(7)
    made = [objective.embed(rows_of(batch, first, first + 3)) for first in (0, 3, 6)]
    joined = {name: torch.cat([one[name] for one in made], dim=1) for name in made[0]}
    expected = total(objective, joined, batch)
    expected.backward()
    assert torch.equal(drawn_next, torch.rand(()))  # backward leaves the generator alone
    assert float(loss) == pytest.approx(expected.item(), rel=1e-13)
    assert_same(parts, gradient(objective))
    _, still = loss_and_gradient(make(), batch, 3)
    assert any(not torch.allclose(parts[name], still[name], rtol=1e-2) for name in still)


@pytest.mark.parametrize("units", [1, 3, 8])
def test_a_twin_embeds_each_part_once_and_the_student_twice(units: int) -> None:
    objective, twin, student = moco_v3(), [], []
    objective.twin.register_forward_pre_hook(lambda _, x: twin.append(len(x[0])))
    objective.encoder.register_forward_pre_hook(lambda _, x: student.append(len(x[0])))
    loss_and_gradient(objective, given(), units)
    assert sum(twin) == 2 * ROWS
    assert sum(student) == (2 if units < ROWS else 1) * 2 * ROWS
    assert max(student) == units


class Alive(TorchDispatchMode):
    """Bytes of the storages that operations have made and that are still there, and their peak.

    given: storages that were there before.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known = {x.untyped_storage()._cdata for x in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.bytes -= size


def peak(make: Make, rows: int, units: int | None) -> int:
    """Of embedding and its gradient; what `terms` needs is the business of kernels and losses."""
    objective = make()
    [batch] = random_batches(1, rows=rows, size=32)
    with Alive([batch.views, *objective.state_dict().values()]) as alive:
        embeddings = embed_in_parts(objective.embed, batch, units)
        torch.stack([x.square().sum() for x in embeddings.values()]).sum().backward()
    return alive.peak


@pytest.mark.parametrize("make", [simclr, byol, vicreg])
def test_memory_is_that_of_a_part_whatever_the_batch(make: Make) -> None:
    """Without parts four times the batch takes four times as much; with them embeddings grow."""
    few, many = (peak(make, rows, 4) for rows in (16, 64))
    assert many - few < 5 * 48 * 2 * 8 * 8  # a few times the embeddings of 48 units: 2 x 8 float64
    assert peak(make, 64, None) > 3.9 * peak(make, 16, None)
    assert peak(make, 16, 8) > 1.8 * few


def test_bfloat16_is_that_of_the_whole_batch_within_its_rounding() -> None:
    gradients = []
    for units in (None, 3):
        objective, batch = moco_v3().float(), given()
        batch.views = batch.views.float()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = total(objective, embed_in_parts(objective.embed, batch, units), batch)
        loss.backward()
        gradients.append(gradient(objective))
    assert_same(gradients[1], gradients[0], 5e-2)
