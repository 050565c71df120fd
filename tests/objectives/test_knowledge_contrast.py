"""The knowledge contrast: what drives regions, what has a gradient, and what ranks share."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.collectives import rank, world_size
from lightning_rad.losses.focal import focal
from lightning_rad.losses.nt_xent import nt_xent
from lightning_rad.modalities.boxes import area
from lightning_rad.modalities.radiomics import Bins, radiomics
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives import knowledge_contrast as module
from lightning_rad.objectives.knowledge_regions import driving, findings_of, regions_of
from lightning_rad.objectives.knowledge_settings import require_one_width, require_wide_statistics
from lightning_rad.objectives.parts import embed_in_parts
from lightning_rad.schema import Findings, LabelledBatch, ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.evidence import with_findings
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches
from tests.objectives.knowledge import NAMES, knowledge_contrast
from tests.objectives.spread import assert_alike_on_ranks

NAN = math.nan
ROWS = 8


def given(**changes: Any) -> ViewBatch:
    [batch] = with_findings(random_batches(1, rows=ROWS, views=1), **changes)
    return batch


def unlabelled(batch: ViewBatch) -> ViewBatch:
    assert batch.findings is not None
    labels = torch.full_like(batch.findings.labels, NAN)
    return replace(batch, findings=replace(batch.findings, labels=labels))


def gradients(objective: Any, batch: ViewBatch, *terms: str) -> dict[str, Tensor]:
    """Of some of the terms, or of all of them."""
    found = objective.terms(objective.embed(batch), batch)
    torch.stack([found[name] for name in terms or found]).sum().backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The boxes that radiomics are taken of, step by step."""
    seen: list[Tensor] = []
    inner = module.cut

    def keep(greys: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        assert greys.dtype == torch.uint8
        seen.append(regions.clone())
        return inner(greys, regions)

    monkeypatch.setattr(module, "cut", keep)
    return seen


@pytest.mark.parametrize("averages", [True, False])
def test_knowledge_e_other_weights_give_other_boxes_at_the_next_step(
    boxes: list[Tensor], averages: bool
) -> None:
    twice = [given(boxed=()), given(boxed=())]
    moving = {"averages": averages, "optimizer": lambda g: torch.optim.SGD(g, lr=20.0)}
    fit_steps(knowledge_contrast(**moving), twice)
    first, second = boxes
    assert (first != second).any(1).sum() >= 2
    boxes.clear()
    still = {"averages": averages, "optimizer": lambda g: torch.optim.SGD(g, lr=0.0)}
    fit_steps(knowledge_contrast(**still), twice)
    assert torch.equal(*boxes)
    assert torch.equal(boxes[0], first)


def test_knowledge_f_no_gradient_flows_through_radiomics_or_boxes_to_the_heat_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = given()
    objective = knowledge_contrast()
    embeddings = objective.embed(batch)
    assert not embeddings["heat"].requires_grad
    mine = gradients(objective, batch, "contrast")
    assert not any(name.startswith("classifier") for name in mine)
    assert float(mine["encoder.layers.0.weight"].abs().max()) > 1e-6

    rows = objective._scored(objective._regions(embeddings, batch), batch)
    fixed = knowledge_contrast()
    monkeypatch.setattr(fixed, "_scored", lambda *_: rows_before)
    rows_before = knowledge_rows(batch)
    assert rows.shape == rows_before.shape
    theirs = gradients(fixed, batch, "contrast")
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-12, atol=0)


def knowledge_rows(batch: ViewBatch) -> Tensor:
    """What a fresh objective takes for the radiomics of a batch: numbers."""
    objective = knowledge_contrast()
    with torch.no_grad():
        found: Tensor = objective._scored(objective._regions(objective.embed(batch), batch), batch)
    return found.clone()


def test_both_terms_are_their_losses_with_their_weights() -> None:
    batch = given()
    objective = knowledge_contrast(
        findings={"weight": 0.6, "alpha": 0.4, "gamma": 1.0},
        contrast={"weight": 0.2, "temperature": 0.1},
    )
    embeddings = objective.embed(batch)
    terms = objective.terms(embeddings, batch)
    labels = findings_of(batch).labels
    total, known = focal(embeddings["logits"][0], labels, alpha=0.4, gamma=1.0)
    assert 0 < int(known) < labels.numel()
    torch.testing.assert_close(terms["focal"], 0.6 * total / known)
    radiomic = objective.radiomic_projector(objective.radiomic_encoder(knowledge_rows(batch)))
    rows = torch.cat([embeddings["image"][0], radiomic])
    wanted = nt_xent(rows, rows.detach(), batch.unit.repeat(2), temperature=0.1)
    torch.testing.assert_close(terms["contrast"], 0.2 * wanted)


def test_rows_are_exchanged_and_compared_by_what_the_settings_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def exchanged(rows: Tensor, how: str) -> Tensor:
        seen["exchange"] = how
        return rows

    def compared(rows: Tensor, *_: Any, **how: Any) -> Tensor:
        seen["backend"] = how["backend"]
        return rows.sum()

    monkeypatch.setattr(module, "exchange_rows", exchanged)
    monkeypatch.setattr(module, "nt_xent", compared)
    settings = {"exchange": "ring", "backend": "reference"}
    objective, batch = knowledge_contrast(contrast=settings), given()
    objective.terms(objective.embed(batch), batch)
    assert seen == settings


def test_a_higher_threshold_makes_smaller_regions_in_training_and_validation(
    boxes: list[Tensor],
) -> None:
    batch, shown = given(boxed=()), []
    images = LabelledBatch(batch.views[0], torch.zeros(ROWS, 1), batch.patient, batch.image[0])
    for threshold in (0.3, 0.9):
        objective = knowledge_contrast(feedback={"threshold": threshold})
        objective.terms(objective.embed(batch), batch)
        shown.append(objective.validation_step(images, 0)["boxes"])
    for wide, narrow in (boxes, shown):
        assert float(area(narrow).mean()) < 0.7 * float(area(wide).mean())


def test_radiomics_are_of_the_bins_that_are_set() -> None:
    batch, bins = given(boxed=range(ROWS)), Bins(width=None, count=4)
    objective = knowledge_contrast(bins=bins)
    regions = objective._regions(objective.embed(batch), batch)
    scored = objective._scored(regions, batch)
    assert batch.greys is not None
    greys, mask = module.cut(batch.greys[0, :, 0], regions.boxes)
    wanted = objective.z_score(radiomics(greys, mask, bins=bins), torch.float64)
    torch.testing.assert_close(scored, wanted)
    assert float((scored - knowledge_rows(batch)).abs().max()) > 0.1


def test_images_without_labels_give_the_contrast_alone() -> None:
    objective, batch = knowledge_contrast(), unlabelled(given(boxed=()))
    terms = objective.terms(objective.embed(batch), batch)
    assert float(terms["focal"].detach()) == 0
    assert float(terms["contrast"].detach()) > 0
    found = gradients(objective, batch)
    assert all(float(found[n].abs().max()) == 0 for n in found if n.startswith("classifier"))
    assert float(found["encoder.layers.0.weight"].abs().max()) > 1e-6


def test_an_annotated_box_is_taken_where_there_is_one_and_heat_elsewhere(
    boxes: list[Tensor],
) -> None:
    objective, batch = knowledge_contrast(), given(boxed=(0, 3))
    objective.terms(objective.embed(batch), batch)
    annotated = [row for row, box in enumerate(boxes[0].tolist()) if box in BOXES]
    assert annotated == [0, 3]
    shares = {name: float(value) for name, value in objective._shares.items()}
    assert shares["annotated"] == 0.25
    assert shares["heat"] + shares["fallback"] == 0.75
    assert shares["heat"] > 0.3


BOXES = [[2, 3, 8, 9], [5, 5, 14, 15]]


@pytest.mark.parametrize(
    ("regions", "annotated"), [("heat", [0, 3]), ("annotated", [0, 3]), ("central", [])]
)
def test_the_loop_can_be_cut_with_and_without_annotated_boxes(
    boxes: list[Tensor], regions: str, annotated: list[int]
) -> None:
    objective, batch = knowledge_contrast(feedback={"regions": regions}), given(boxed=(0, 3))
    embeddings = objective.embed(batch)
    objective.terms(embeddings, batch)
    fixed = (torch.tensor([24, 24, 200, 200]) / 224 * 16).tolist()
    assert ("heat" in embeddings) == (regions == "heat")
    assert [row for row, box in enumerate(boxes[0].tolist()) if box in BOXES] == annotated
    if regions != "heat":
        rest = [row for row in range(ROWS) if row not in annotated]
        wanted = torch.tensor(fixed).expand(len(rest), 4)
        torch.testing.assert_close(boxes[0][rest].float(), wanted)


def test_the_finding_that_drives_is_the_most_probable_that_is_present_else_of_all() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]] * 4)
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [NAN, NAN, NAN], [1, NAN, NAN]])
    assert driving(logits, labels).tolist() == [1, 2, 2, 0]


def test_of_several_boxes_the_largest_of_the_driving_finding_is_taken_else_the_largest() -> None:
    small, large, none = [0.0, 0, 4, 4], [0.0, 0, 9, 9], [NAN] * 4
    outside, flat, over = [20.0, 20, 30, 30], [3.0, 3, 3, 9], [-50.0, -50, 5, 5]
    given = [[small, large], [large, small], [outside, flat], [none, none], [over, small]]
    findings = Findings(
        torch.zeros(5, 3),
        torch.tensor(given),
        torch.tensor([[1, 2], [2, 2], [1, 1], [-1, -1], [0, 2]]),
    )
    found = regions_of(findings, torch.ones(5).long(), None, (16, 16))
    assert found.annotated.tolist() == [True, True, False, False, True]
    assert not found.hot.any()
    assert found.boxes[0].tolist() == small
    assert found.boxes[1].tolist() == large
    assert found.boxes[4].tolist() == [0, 0, 5, 5]  # what of it is in the view
    empty = Findings(torch.zeros(5, 3), torch.zeros(5, 0, 4), torch.zeros(5, 0).long())
    assert not regions_of(empty, torch.ones(5).long(), None, (16, 16)).hot.any()


@pytest.mark.parametrize("averages", [True, False])
@pytest.mark.parametrize("units", [1, 3])
def test_a_batch_in_parts_is_the_whole_batch_and_its_radiomics_are_taken_once(
    boxes: list[Tensor], units: int, averages: bool
) -> None:
    batch, found = given(), []
    for at_once in (None, units):
        objective = knowledge_contrast(averages=averages)
        terms = objective.terms(embed_in_parts(objective.embed, batch, at_once), batch)
        torch.stack(list(terms.values())).sum().backward()
        found.append({n: p.grad for n, p in objective.named_parameters()})
    assert len(boxes) == 2
    torch.testing.assert_close(boxes[0], boxes[1])
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-10, atol=1e-14)


def test_every_second_step_has_radiomics_and_the_others_have_gradients_of_zero(
    boxes: list[Tensor],
) -> None:
    objective = knowledge_contrast(feedback={"every": 2, "start": 1})
    seen: list[dict[str, float]] = []
    told: list[bool] = []
    logged: list[set[str]] = []
    log_dict = objective.log_dict

    def keep(values: Any, **how: Any) -> None:
        logged.append(set(values))
        log_dict(values, **how)

    def look(*_: Any) -> None:
        told.append(bool(objective._shares))
        named = objective.named_parameters()
        seen.append({n: float(p.grad.abs().max()) for n, p in named if p.grad is not None})

    objective.on_after_backward = look  # type: ignore[method-assign]
    objective.log_dict = keep  # type: ignore[method-assign,assignment]
    snapshots = fit_steps(objective, [given() for _ in range(4)])
    assert len(boxes) == 2
    assert told == [False, True, False, True]  # of a step without regions there are no shares
    assert snapshots[1].terms["region_annotated"] == 0.25
    # nothing is logged of what was not computed: the trainer keeps the last that was
    assert logged[0] | logged[1] == logged[4] | logged[5] == {"train/focal"}
    assert "train/contrast" in logged[2] & logged[6]
    assert "contrast" not in snapshots[0].terms
    assert snapshots[1].terms["contrast"] == snapshots[2].terms["contrast"] > 0
    for step, largest in enumerate(seen):
        assert largest.keys() == dict(objective.named_parameters()).keys()
        for name, value in largest.items():
            if name.startswith(("radiomic", "projector")):
                assert (value > 0) == (step % 2 == 1), (step, name)
            else:
                assert value > 0
    counts = [one.state["z_score.count"].max() for one in snapshots]
    assert [float(c) for c in counts] == [32, 40, 40, 48]


def test_without_a_weight_there_is_no_contrast_and_nothing_of_radiomics() -> None:
    objective, batch = knowledge_contrast(contrast={"weight": 0.0}), given()
    names = {name.split(".")[0] for name in objective.state_dict()}
    assert names == {"encoder", "classifier"}
    assert objective.terms(objective.embed(batch), batch).keys() == {"focal"}
    assert gradients(objective, batch).keys() == dict(objective.named_parameters()).keys()


def test_running_statistics_rest_in_evaluation_and_take_the_batch_in_training() -> None:
    objective, batch = knowledge_contrast(), given()
    before = objective.z_score.count.clone()
    objective.eval()
    objective.terms(objective.embed(batch), batch)
    assert torch.equal(objective.z_score.count, before)
    objective.train()
    objective.terms(objective.embed(batch), batch)
    assert float(objective.z_score.count.max()) == float(before.max()) + ROWS


def test_regions_of_one_pixel_and_flat_ones_give_a_finite_loss_and_are_counted() -> None:
    batch = given(boxed=range(ROWS))
    assert batch.findings is not None
    assert batch.greys is not None
    one = torch.tensor([4.0, 4.0, 5.0, 5.0]).expand(1, 4, 2, 4)
    boxes = torch.cat([one, batch.findings.boxes[:, 4:]], 1)
    batch = replace(batch, findings=replace(batch.findings, boxes=boxes))
    batch.greys[0, 4:6] = 77
    objective = knowledge_contrast()
    found = gradients(objective, batch)
    assert all(value.isfinite().all() for value in found.values())
    assert float(objective._shares["nan"]) == 0.5


def test_under_autocast_heat_is_float32_and_radiomics_are_what_they_were(
    boxes: list[Tensor],
) -> None:
    batch = given(boxed=range(ROWS))
    batch = replace(batch, views=batch.views.float())
    objective = knowledge_contrast().float()
    for name in ("count", "mean", "spread"):
        objective.z_score.register_buffer(name, getattr(objective.z_score, name).double())
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = objective.embed(batch)
        terms = objective.terms(embeddings, batch)
    assert embeddings["heat"].dtype == torch.float32
    wide = objective.terms(objective.embed(batch), batch)
    torch.stack(list(terms.values())).sum().backward()
    for name, value in wide.items():
        torch.testing.assert_close(terms[name].float(), value, rtol=0.05, atol=0.01)
    assert torch.equal(*boxes)


def test_validation_gives_logits_and_a_box_of_every_finding() -> None:
    objective, batch = knowledge_contrast().eval(), given()
    labels = torch.full((ROWS, 14), NAN)
    images = LabelledBatch(batch.views[0], labels, batch.patient, batch.image[0])
    with torch.no_grad():
        found = objective.validation_step(images, 0)
        features = objective.encoder(batch.views[0])
    assert torch.equal(found["features"], features.float())
    assert found["logits"].shape == (ROWS, len(NAMES))
    assert found["boxes"].shape == (ROWS, len(NAMES), 4)
    direct = objective.classifier(features)[0].float()
    assert torch.equal(found["logits"], direct)
    assert len({tuple(box) for box in found["boxes"][0].tolist()}) > 1
    heat = objective.embed(unlabelled(batch))["heat"][0]
    driven, _ = module.box_of_heat(heat, (16, 16))
    best = direct.argmax(1)
    torch.testing.assert_close(found["boxes"][torch.arange(ROWS), best], driven.float())


def uneven() -> ViewBatch:
    """All that is known is in the first half: the second of two ranks knows nothing."""
    batch = given(boxed=(0, 5))
    assert batch.findings is not None
    batch.findings.labels[:, ROWS // 2 :] = NAN
    return batch


@pytest.mark.parametrize("averages", [True, False])
def test_ranks_of_which_one_knows_nothing_find_the_loss_and_gradient_of_one(averages: bool) -> None:
    make = knowledge_contrast if averages else not_averaging
    assert_alike_on_ranks(make, uneven(), ranks=2)


def not_averaging() -> Any:
    return knowledge_contrast(averages=False)


def statistics_on_this_rank(batches: list[ViewBatch]) -> dict[str, Tensor]:
    assert rank() < world_size()
    return fit_on_this_rank(knowledge_contrast, batches)[-1].under("z_score")


def test_running_statistics_are_equal_on_ranks_and_those_of_one_process() -> None:
    batches = with_findings(random_batches(2, rows=ROWS, views=1), boxed=range(ROWS))
    alone = fit_steps(knowledge_contrast(), batches)[-1].under("z_score")
    first, second = run_on_ranks(statistics_on_this_rank, 2, batches)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-12, atol=1e-9)
    assert float(alone["count"].max()) == 32 + 2 * ROWS


def test_the_loss_of_known_elements_is_over_those_of_all_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two halves of a batch, each told how much the other knows, average to the whole."""
    batch, objective = uneven(), knowledge_contrast(contrast={"weight": 0.0})
    whole = objective.terms(objective.embed(batch), batch)["focal"]
    known = (~findings_of(batch).labels.isnan()).sum()
    monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(module, "gather_detached", lambda own: torch.stack([known, 0 * own[0]]))
    halves = [batch.rows(slice(0, 4)), batch.rows(slice(4, 8))]
    losses = [objective.terms(objective.embed(half), half)["focal"] for half in halves]
    assert float(losses[1].detach()) == 0
    torch.testing.assert_close(sum(losses) / 2, whole)


def test_the_findings_are_told_to_the_data_and_kept_in_the_checkpoint() -> None:
    objective, told = knowledge_contrast(), []
    checkpoint: dict[str, Any] = {}
    objective.on_save_checkpoint(checkpoint)
    assert checkpoint["findings"] == list(NAMES)
    objective.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"findings \['mass'\], this run has \['edema', 'mass', "):
        objective.on_load_checkpoint(checkpoint | {"findings": ["mass"]})

    class Data:
        def read_findings(self, reading: Any) -> None:
            told.append(reading)

    objective._trainer = type("T", (), {"datamodule": Data()})()  # type: ignore[assignment]
    objective.setup("validate")
    assert [reading.names for reading in told] == [NAMES]


def test_what_cannot_be_is_refused_by_its_key() -> None:
    with pytest.raises(ValueError, match=r"feedback.every must be at least 1, got 0"):
        knowledge_contrast(feedback={"every": 0})
    with pytest.raises(ValueError, match=r"feedback.start must be at least 0"):
        knowledge_contrast(feedback={"start": -1})
    with pytest.raises(ValueError, match=r"feedback.threshold must lie between 0 and 1"):
        knowledge_contrast(feedback={"threshold": 1.0})
    with pytest.raises(ValueError, match=r"feedback.regions: 'box' is not one of"):
        knowledge_contrast(feedback={"regions": "box"})
    with pytest.raises(ValueError, match=r"contrast.weight must lie in \[0, 1\], got -0.1"):
        knowledge_contrast(contrast={"weight": -0.1})
    with pytest.raises(
        ValueError, match=r"findings.weight and contrast.weight are both 0: nothing"
    ):
        knowledge_contrast(contrast={"weight": 0.0}, findings={"weight": 0.0})
    with pytest.raises(ValueError, match=r"temperature must be at least 0.01"):
        knowledge_contrast(contrast={"temperature": 0.0})
    with pytest.raises(ValueError, match=r"findings.alpha must lie in \[0, 1\]"):
        knowledge_contrast(findings={"alpha": 1.5})
    with pytest.raises(ValueError, match=r"findings.gamma must be at least 0"):
        knowledge_contrast(findings={"gamma": NAN})


def test_16_bit_statistics_and_heads_of_two_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"radiomic.projector.out_features is 4, projector"):
        require_one_width(Projector(8, out_features=8), Projector(8, out_features=4))
    with pytest.raises(ValueError, match=r"K: trainer.precision bf16-true .* set bf16-mixed"):
        require_wide_statistics("K", "bf16-true")
    require_wide_statistics("K", "bf16-mixed")
