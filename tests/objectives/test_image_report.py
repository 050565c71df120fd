"""Image-report contrast: CLIP, ConVIRT and SigLIP against their sources written out.

Letters in names are those of the conformance list; a and b are in the tests of parity.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn.functional import normalize

from lightning_rad.modalities.reading import ReadingSettings
from lightning_rad.modalities.words import train_words
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.image_report import ImageReport, TextSide
from lightning_rad.objectives.pair_contrast import PairContrast
from lightning_rad.schema import Reports, StudyBatch, ViewBatch
from tests.gloo import run_on_ranks
from tests.nn.texts import SENTENCES
from tests.objectives.fixed import (
    FixedBatches,
    Snapshot,
    fit_on_this_rank,
    fit_steps,
    random_batches,
    with_reports,
)
from tests.objectives.small_nets import TOKENIZER, Norm, SmallEncoder, small_text
from tests.objectives.spread import assert_alike_on_ranks
from tests.objectives.transcribed.image_report import ImageReportStep, image_report_steps

ROWS, LIMIT, STEPS, LR = 8, 12, 4, 0.1
SAME = [(0, 5), (2, 3, 7)]
"""Rows of a batch that have one text; of two ranks each holds some of both."""

FORMS: dict[str, dict[str, Any]] = {
    "clip": {"temperature": 0.07},
    "convirt": {"temperature": 0.1, "learned": False, "image_share": 0.75},
    "siglip": {"form": "sigmoid", "temperature": 0.1, "bias": -10.0},
}
LOUD = 10.0
"""What weights of the text encoder are multiplied by, so that what a report says shows."""


def head(norm: Norm, width: int, features: int = 6) -> Projector:
    return Projector(width, hidden=7, out_features=features, norm=norm)


def image_report(norm: Norm = "none", form: str = "clip", **changes: Any) -> ImageReport:
    """Without dropout. rate: of the text side; what else PairContrast takes changes the form's."""
    torch.manual_seed(0)
    text = TextSide(small_text, partial(head, norm), changes.pop("rate", None))
    given: dict[str, Any] = {
        "encoder": SmallEncoder(norm),
        "reports": ReadingSettings(TOKENIZER, limit=LIMIT),
        "projector": partial(head, norm),
        "text": text,
        "optimizer": partial(torch.optim.SGD, lr=LR),
    }
    given |= {name: changes.pop(name) for name in sorted(given.keys() & changes.keys())}
    objective = ImageReport(**given, contrast=PairContrast(**(FORMS[form] | changes))).double()
    with torch.no_grad():
        for p in objective.text.parameters():
            p.mul_(LOUD if p.ndim > 1 else 1)
        if objective.contrast.learned:  # the number itself, not what float32 made of it
            objective.log_scale.fill_(math.log(1 / objective.contrast.temperature))
    return objective


def batches(count: int = 1, *, views: int = 1, same: Any = (), rows: int = ROWS) -> list[ViewBatch]:
    return with_reports(random_batches(count, rows=rows, views=views), same=same, limit=LIMIT)


def report_of(batch: ViewBatch) -> Reports:
    assert batch.report is not None
    return batch.report


def terms(objective: ImageReport, batch: ViewBatch) -> Tensor:
    return objective.terms(objective.embed(batch), batch)["contrast"]


def close(got: Any, wanted: Any, bound: float = 1e-10) -> None:
    torch.testing.assert_close(got, wanted, rtol=bound, atol=bound)


# --- against the sources written out

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "clip": ({"form": "clip"}, {}, {}),
    "clip_at_the_bound": ({"form": "clip", "temperature": 0.01}, {"temperature": 0.01}, {}),
    "clip_faithful": ({"form": "clip", "faithful": True}, {"faithful": True}, {}),
    "clip_two_views": ({"form": "clip"}, {}, {"views": 2}),
    "clip_rates_and_momentum": (
        {
            "form": "clip",
            "rate": 0.02,
            "optimizer": partial(torch.optim.SGD, lr=LR, momentum=0.9),
        },
        {"text_lr": 0.02, "momentum": 0.9, "clip": 0.05},
        {},
    ),
    "clip_ring": ({"form": "clip", "exchange": "ring", "backend": "fused"}, {}, {}),
    "convirt": ({"form": "convirt"}, {}, {}),
    "convirt_two_views": ({"form": "convirt"}, {}, {"views": 2}),
    "convirt_fused": ({"form": "convirt", "backend": "fused"}, {}, {}),
    "siglip": ({"form": "siglip"}, {}, {}),
    "siglip_faithful": ({"form": "siglip", "faithful": True}, {"faithful": True}, {}),
    "siglip_two_views": ({"form": "siglip", "bias": -3.0}, {"bias": -3.0}, {"views": 2}),
    "siglip_fixed": ({"form": "siglip", "learned": False}, {"learned": False}, {}),
    "siglip_fused": ({"form": "siglip", "backend": "fused"}, {}, {}),
}
"""By name: what is changed of the objective, of the transcription, and of the batches."""


def given(case: str) -> list[ViewBatch]:
    return batches(STEPS, same=SAME, **CASES[case][2])


def made(case: str) -> ImageReport:
    return image_report(**CASES[case][0])


def expected(case: str) -> list[ImageReportStep]:
    form = CASES[case][0]["form"]
    objective, seen = made(case), given(case)
    settings: dict[str, Any] = {
        "form": form,
        "temperature": FORMS[form]["temperature"],
        "learned": form != "convirt",
        "largest_scale": None if form == "siglip" else 100.0,
        "held": "after",
        "lr": LR,
    }
    return image_report_steps(
        nn.Sequential(objective.encoder, objective.projector),
        nn.Sequential(objective.text, objective.text_projector),
        [batch.views for batch in seen],
        texts=[report_of(batch).tokens["text"] for batch in seen],
        hashes=[report_of(batch).hash for batch in seen],
        **(settings | CASES[case][1]),
    )


def trainer_of(case: str) -> dict[str, Any]:
    bound = CASES[case][1].get("clip")
    return {} if bound is None else {"gradient_clip_val": bound}


def assert_steps(ranks: list[list[Snapshot]], case: str) -> None:
    """State of every rank, and the mean of their terms, to 1e-10."""
    wanted = expected(case)
    assert all(len(steps) == len(wanted) for steps in ranks)
    for k, step in enumerate(wanted):
        for steps in ranks:
            close(steps[k].chain("encoder", "projector"), step.student)
            close(steps[k].chain("text", "text_projector"), step.text)
            close({n: steps[k].state[n] for n in step.learned}, step.learned)
            assert ("log_scale" in steps[k].state) == bool(step.learned)
        mean = sum(steps[k].terms["contrast"] for steps in ranks) / len(ranks)
        assert mean == pytest.approx(step.terms["contrast"], rel=1e-10)
        told = [steps[k].terms.get("temperature") for steps in ranks]
        if step.learned:
            assert told == pytest.approx([step.parts["temperature"]] * len(ranks), rel=1e-10)
        else:
            assert told == [None] * len(ranks)


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_that_of_the_source_written_out(case: str) -> None:
    assert_steps([fit_steps(made(case), given(case), unit="study", **trainer_of(case))], case)


def _on_this_rank(cases: list[str]) -> list[list[Snapshot]]:
    return [
        fit_on_this_rank(partial(made, case), given(case), "study", **trainer_of(case))
        for case in cases
    ]


def test_two_ranks_take_the_steps_of_the_source_on_the_whole_batch() -> None:
    by_rank = run_on_ranks(_on_this_rank, 2, list(CASES))
    for number, case in enumerate(CASES):
        assert_steps([runs[number] for runs in by_rank], case)


@pytest.mark.parametrize("case", CASES)
def test_what_is_compared_moves(case: str) -> None:
    """By a thousand times the bound at least."""
    objective, last = made(case), expected(case)[-1]
    image = nn.Sequential(objective.encoder, objective.projector).state_dict()
    text = nn.Sequential(objective.text, objective.text_projector).state_dict()
    for start, end in ((image, last.student), (text, last.text)):
        assert max(float((end[n] - start[n]).abs().max()) for n in end) > 1e-6
    for name, value in last.learned.items():
        assert abs(float(value - objective.state_dict()[name])) > 1e-6, name


# --- letters


def directions(objective: ImageReport, batch: ViewBatch) -> tuple[Tensor, Tensor]:
    """The losses of images among reports and of reports among images, written out."""
    made = objective.embed(batch)
    logits = normalize(made["image"][0]) @ normalize(made["text"][0]).mT / 0.1
    place = torch.arange(len(logits))
    cross_entropy = nn.functional.cross_entropy
    return cross_entropy(logits, place), cross_entropy(logits.mT, place)


def test_image_report_c_convirt_weighs_images_among_reports_by_three_quarters() -> None:
    objective, [batch] = image_report(form="convirt"), batches()
    of_images, of_reports = directions(objective, batch)
    assert abs((of_images - of_reports).item()) > 1e-3
    close(terms(objective, batch), 0.75 * of_images + 0.25 * of_reports)
    even = image_report(form="convirt", image_share=0.5)
    close(terms(even, batch), (of_images + of_reports) / 2)


def written_out(objective: ImageReport, batch: ViewBatch) -> Tensor:
    """The dense matrix of pairs, less those of one text."""
    how, made, rows = objective.contrast, objective.embed(batch), len(batch.unit)
    logits = normalize(made["image"][0]) @ normalize(made["text"][0]).mT / how.temperature
    own, hashes = torch.eye(rows).bool(), report_of(batch).hash
    left_out = (hashes[:, None] == hashes) & ~own & (not how.faithful)
    if how.form == "sigmoid":
        each = nn.functional.softplus((1 - 2 * own.double()) * (logits + how.bias))
        return each.masked_fill(left_out, 0).sum() / rows
    place, logits = torch.arange(rows), logits.masked_fill(left_out, -torch.inf)
    shares = how.image_share, 1 - how.image_share
    both = zip(shares, (logits, logits.mT), strict=True)
    return sum(w * nn.functional.cross_entropy(x, place) for w, x in both)  # type: ignore[return-value]


@pytest.mark.parametrize("form", FORMS)
def test_image_report_d_units_of_one_text_are_no_negatives_of_each_other(form: str) -> None:
    [batch] = batches(same=SAME)
    bias = {"bias": -1.0} if form == "siglip" else {}
    found = {}
    for faithful in (False, True):
        objective = image_report(form=form, faithful=faithful, **bias)
        found[faithful] = terms(objective, batch).item()
        assert found[faithful] == pytest.approx(written_out(objective, batch).item(), rel=1e-10)
    assert found[True] > found[False] + 0.01


@pytest.mark.parametrize("form", ["clip", "convirt"])
def test_image_report_d_where_all_have_one_text_there_is_nothing_to_tell_apart(form: str) -> None:
    [batch] = batches(same=[range(ROWS)])
    objective = image_report(form=form)
    loss = terms(objective, batch)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for name, p in objective.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() < 1e-12, name
    faithful = terms(image_report(form=form, faithful=True), batch)
    assert faithful.item() >= math.log(ROWS) - 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_three_views_are_three_rows_of_one_report(form: str) -> None:
    """All equal, they cost what one does and, of a softmax, the three places it shares."""
    objective, [batch] = image_report(form=form), batches(same=SAME)
    thrice = replace(batch, views=batch.views.repeat(3, 1, 1, 1, 1), image=batch.image.repeat(3, 1))
    one, three = terms(objective, batch), terms(objective, thrice)
    close(three, 3 * one if form == "siglip" else one + math.log(3))


@pytest.mark.parametrize("least", [0.01, 0.05])
def test_image_report_e_a_learned_temperature_is_held_at_its_bound(least: float) -> None:
    """A hundredth, unless the config says more. The loss is made larger here, so that the scale
    rises as far as it may."""
    up = partial(torch.optim.SGD, lr=50.0, maximize=True)
    how: dict[str, Any] = {"temperature": 1.1 * least, "least": least, "optimizer": up}
    free = image_report(**how)
    start = float(free.log_scale.detach())
    terms(free, batches()[0]).backward()
    assert free.log_scale.grad is not None
    bound = math.log(1 / least)
    assert start + 50 * float(free.log_scale.grad) > bound + 0.1  # where it would go
    steps = fit_steps(image_report(**how, projector=frozen_head), batches(3))
    assert [float(step.state["log_scale"]) for step in steps] == [bound] * 3
    assert [step.terms["temperature"] for step in steps] == pytest.approx(
        [1.1 * least, least, least], rel=1e-9
    )
    assert PairContrast().least == 0.01


def frozen_head(width: int) -> Projector:
    return head("none", width).requires_grad_(False)


def test_at_its_bound_a_temperature_has_a_gradient_and_can_come_back() -> None:
    held = image_report(temperature=0.01)
    [step] = fit_steps(held, batches(), unit="study")
    assert float(step.state["log_scale"]) < math.log(100) - 1e-4


# --- what else it is


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("faithful", [False, True])
def test_ranks_find_the_loss_and_gradient_of_one_process(form: str, faithful: bool) -> None:
    make = partial(image_report, "none", form, faithful=faithful)
    assert_alike_on_ranks(make, batches(same=SAME, views=2)[0], 2)


def test_a_text_side_has_its_own_rate_where_one_is_given() -> None:
    def rates(objective: ImageReport) -> dict[str, float | None]:
        groups = objective.parameter_groups()
        return {
            name: next(g.get("lr") for g in groups if any(p is q for q in g["params"]))
            for name, p in objective.named_parameters()
        }

    assert set(rates(image_report()).values()) == {None}
    for name, rate in rates(image_report(rate=0.02)).items():
        assert rate == (0.02 if name.startswith("text") else None), name


@pytest.mark.parametrize("form", ["clip", "siglip"])
def test_scale_and_bias_do_not_decay(form: str) -> None:
    objective = image_report(form=form)
    learned = [p for p in objective.parameters() if not p.ndim]
    assert len(learned) == (2 if form == "siglip" else 1)
    for group in objective.parameter_groups():
        if any(p is q for p in group["params"] for q in learned):
            assert group["weight_decay"] == 0


def test_what_is_fixed_is_no_parameter() -> None:
    assert not [p for p in image_report(form="convirt").parameters() if not p.ndim]
    assert not [p for p in image_report(form="siglip", learned=False).parameters() if not p.ndim]


def test_it_hands_its_reading_to_the_data_in_every_stage() -> None:
    objective = image_report()
    for stage in ("fit", "validate", "test", "predict"):
        data = FixedBatches(batches(), unit="study")
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.datamodule, trainer.strategy._lightning_module = data, objective
        objective.trainer = trainer
        objective.setup(stage)
        assert data.reading is objective.reading
    [words] = data.reading.words.values()
    assert list(data.reading.words) == ["text"]
    assert (words.limit, data.reading.settings.tokenizer) == (LIMIT, TOKENIZER)
    assert words.encode(SENTENCES[3])[-1] == words.end  # a text that is cut keeps its end


def test_without_a_data_module_it_can_be_evaluated() -> None:
    objective = image_report()
    objective.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    objective.setup("validate")


@pytest.mark.parametrize("views", [1, 2])
def test_of_a_study_it_gives_both_sides_and_who_they_are(views: int) -> None:
    objective, [batch] = image_report().eval(), batches(views=views)
    made = objective.embed(batch)
    studies = StudyBatch(batch, torch.rand(ROWS, 3))
    read = objective.read_studies(studies, write=True)
    assert read.keys() == {"image", "text", "hash", "unit", "patient", "labels"}
    for side in ("image", "text"):
        assert read[side].shape == (ROWS, 6)
        assert read[side].dtype == torch.float32
    wanted = normalize(made["image"], dim=2).mean(0)
    close(normalize(read["image"].double()), normalize(wanted), 1e-6)
    close(read["text"].double(), made["text"][0], 1e-6)
    assert torch.equal(read["hash"], report_of(batch).hash)
    assert torch.equal(read["unit"], batch.unit)
    assert torch.equal(read["labels"], studies.labels)


def test_studies_reach_it_in_validation_and_its_weights_stay() -> None:
    seen: list[dict[str, Tensor]] = []
    objective, given_batches = image_report(), batches(2)
    read = objective.read_studies
    objective.read_studies = lambda b, *, write: seen.append(read(b, write=write)) or seen[-1]  # type: ignore
    studies = [StudyBatch(given_batches[0], torch.zeros(ROWS, 1))]
    looking = {"limit_val_batches": 1, "num_sanity_val_steps": 0, "val_check_interval": 1}
    looked = fit_steps(objective, given_batches, unit="study", studies=studies, **looking)
    assert len(seen) == 2
    for mine, theirs in zip(
        looked, fit_steps(image_report(), given_batches, unit="study"), strict=True
    ):
        close(mine.state, theirs.state, 0)


# --- tokenisers in checkpoints


def other_tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    path.write_text(train_words(SENTENCES, vocabulary=60))
    return str(path)


def saved(objective: ImageReport) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    objective.on_save_checkpoint(checkpoint)
    return checkpoint


def test_weights_of_another_tokeniser_are_refused_by_name(tmp_path: Path) -> None:
    mine = saved(image_report())
    reports = ReadingSettings(other_tokenizer(tmp_path), limit=LIMIT)
    theirs = saved(image_report(reports=reports))
    digests = mine["words"]["text"], theirs["words"]["text"]
    assert digests[0] != digests[1]
    said = rf"trained with tokeniser {digests[1]} \(text\), this run has {digests[0]}: set"
    with pytest.raises(ValueError, match=said):
        image_report().on_load_checkpoint(theirs)


def test_a_tokeniser_may_lie_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "moved.json"
    path.write_bytes(Path(TOKENIZER).read_bytes())
    reports = ReadingSettings(str(path), limit=LIMIT)
    image_report(reports=reports).on_load_checkpoint(saved(image_report()))


# --- what is refused


def refused(**how: Any) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller reads the message
        image_report(**how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("form", ["clip", "siglip"])
def test_a_learned_temperature_in_16_bits_is_refused(form: str, precision: str) -> None:
    """It would stay where it is: near log(1 / 0.07) bfloat16 has steps of 0.016."""
    told = rf"^ImageReport: trainer.precision {precision} .* set {precision[:-4]}mixed, or contrast"
    with pytest.raises(ValueError, match=told):
        fit_steps(image_report(form=form), batches(), unit="study", precision=precision)
    start = torch.tensor(math.log(1 / 0.07), dtype=torch.bfloat16)
    assert start - 5e-4 == start


def test_a_fixed_temperature_may_be_in_16_bits() -> None:
    objective = image_report(form="convirt")
    how: dict[str, Any] = {"precision": "bf16-true", "callbacks": []}
    fit_steps(objective, batches(), unit="study", **how)
    assert all(p.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"form": "siglip", "exchange": "ring"}, "contrast.exchange is ring"),
        ({"form": "siglip", "image_share": 0.75}, "contrast.image_share is 0.75: the sigmoid"),
        ({"bias": -3.0}, "contrast.bias is -3.0: the softmax"),
        ({"image_share": 1.5}, "contrast.image_share must lie in [0, 1], got 1.5"),
        ({"temperature": 0.001}, "temperature must be at least 0.01, got 0.001"),
        ({"least": 0.001}, "contrast.least must lie between 0.01 and contrast.temperature 0.07"),
        ({"least": 0.08}, "contrast.least must lie between 0.01 and contrast.temperature 0.07"),
        ({"rate": -1.0}, "text.rate must be at least 0, got -1.0"),
        ({"projector": partial(head, "none", features=5)}, "text.projector.out_features is 6"),
        ({"reports": ReadingSettings("missing.json")}, "missing.json"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(
    how: dict[str, Any], said: str
) -> None:
    assert said in refused(**how)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^contrast\.form: 'hinge' is not one of"):
        PairContrast(form="hinge")  # type: ignore[arg-type]


def test_a_patient_has_several_reports_and_is_refused() -> None:
    said = r"^ImageReport: data\.unit must be study or image, it is patient$"
    with pytest.raises(ValueError, match=said):
        fit_steps(image_report(), batches(), unit="patient")
    for unit in ("study", "image"):
        fit_steps(image_report(), batches(), unit=unit)
