"""REFERS in use: studies of one text, what a fit and an evaluation ask of it, its config."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lightning_rad.losses.captioning import counted
from lightning_rad.objectives.refers import StudyContrast
from lightning_rad.schema import StudyBatch, ViewBatch
from tests.configs.test_stacks import CONFIGS
from tests.objectives.fixed import fit_steps
from tests.objectives.spread import assert_alike_on_ranks
from tests.objectives.test_refers import (
    LIMIT,
    ROWS,
    SAME,
    batch,
    contrasted,
    gradients,
    refers,
    report_of,
    same,
)


def test_studies_of_one_text_do_not_repel_unless_faithful() -> None:
    """A batch of one text has no negative at all; moved by one hash it has them."""
    alike, distinct = batch([range(4)], rows=4), batch(rows=4)
    report = report_of(alike)
    value, none = gradients(refers(), alike)
    assert value == pytest.approx(0.0, abs=1e-12)
    assert max(float(g.abs().max()) for g in none.values()) < 1e-12
    faithful, some = gradients(contrasted(faithful=True), alike)
    assert faithful > 0.1
    assert max(float(g.abs().max()) for g in some.values()) > 1e-3
    own = replace(alike, report=replace(report, hash=report_of(distinct).hash))
    assert gradients(refers(), own)[0] == pytest.approx(faithful, rel=1e-12)


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_the_gradient_to_a_pair_of_one_text_is_0_whoever_else_is_there(moved: int) -> None:
    """Another vector of that report changes study 0's gradient as long as the texts differ."""
    objective, given = contrasted(image_share=1.0), batch(rows=4)
    made, report = objective.embed(given), report_of(given)
    other = made["text"].detach().clone()
    other[0, moved] = torch.randn(24, generator=torch.Generator().manual_seed(1)).double()

    def of_study_0(text: Tensor, hash_B: Tensor) -> Tensor:
        image = made["image"].detach().clone().requires_grad_()
        one = replace(given, report=replace(report, hash=hash_B))
        loss = objective.terms(made | {"image": image, "text": text}, one)["contrast"]
        return torch.autograd.grad(loss, image)[0][0, 0]

    shared = report.hash.clone()
    shared[moved] = shared[0]
    text = made["text"].detach()
    same(of_study_0(other, shared), of_study_0(text, shared))
    apart = of_study_0(other, report.hash) - of_study_0(text, report.hash)
    assert float(apart.abs().max()) > 1e-3


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"faithful": True},
        {"faithful_code": True},
        {"exchange": "ring"},
        {"faithful_code": True, "exchange": "ring"},
    ],
    ids=str,
)
def test_same_loss_and_gradient_on_two_ranks_with_texts_across_them(how: dict[str, Any]) -> None:
    given = batch(SAME)
    assert_alike_on_ranks(partial(contrasted, **how), given, 2)


def test_the_text_side_alone_has_the_rate_of_text() -> None:
    objective = refers(text_rate=0.01)
    names = [name for name, _ in objective.named_parameters()]
    wanted = {name for name in names if name.startswith(("text.", "text_projection."))}
    groups = objective.parameter_groups()
    slow = {id(p) for group in groups if group.get("lr") == 0.01 for p in group["params"]}
    assert {name for name, p in objective.named_parameters() if id(p) in slow} == wanted
    assert not any("lr" in group for group in refers().parameter_groups())
    with pytest.raises(ValueError, match=r"^text_rate must be at least 0, got -1"):
        refers(text_rate=-1)


def studies(given: ViewBatch) -> StudyBatch:
    return StudyBatch(given, torch.zeros(len(given.unit), 2))


def test_what_is_read_of_studies_is_what_is_learned_from() -> None:
    objective, given = refers().eval(), batch(SAME)
    with torch.no_grad():
        made, read = objective.embed(given), objective.read_studies(studies(given), write=False)
    assert "generated" not in read
    for name in ("image", "text"):
        assert read[name].dtype == torch.float32
        same(read[name], made[name][0].float())
    same(read["nll"], made["nll"].flatten().float())
    assert torch.equal(read["tokens"], counted(report_of(given).tokens["caption"]))
    assert torch.equal(read["hash"], report_of(given).hash)
    with torch.no_grad():
        written = objective.read_studies(studies(given), write=True)["generated"]
    assert written.shape == (ROWS, LIMIT)
    assert bool((written[:, 0] == objective.caption_words.start).all())
    assert isinstance(objective.caption_words.decode(written[0].tolist()), str)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused_by_name(share: float) -> None:
    with pytest.raises(ValueError, match=r"^contrast\.image_share must lie in \[0, 1\], got"):
        StudyContrast(image_share=share)


def test_the_fit_asks_the_data_for_reports_and_keeps_whose_words_they_are() -> None:
    objective = refers()
    [step] = fit_steps(objective, [batch()], unit="study")
    assert set(step.terms) == {"caption", "contrast"}
    assert objective.trainer.datamodule.reading is objective.reading  # type: ignore[attr-defined]
    saved: dict[str, Any] = {}
    objective.on_save_checkpoint(saved)
    assert saved["words"] == objective.reading.digests
    assert set(saved["words"]) == {"caption", "text"}


def test_a_cut_report_has_no_end_for_the_decoder_and_one_for_the_text_encoder() -> None:
    words = refers().reading.words
    long = "the heart is enlarged. " * 50
    assert (words["caption"].keep_end, words["text"].keep_end) == (False, True)
    assert words["caption"].encode(long)[-1] != words["caption"].end
    assert words["text"].encode(long)[-1] == words["text"].end


def test_the_constants_of_the_paper_are_in_its_config() -> None:
    given = yaml.safe_load((CONFIGS / "paper/refers.yaml").read_text())
    model, trainer = given["model"]["init_args"], given["trainer"]
    contrast = {"temperature": 0.1, "image_share": 0.75}
    assert {name: model["contrast"][name] for name in contrast} == contrast
    assert {k: v for k, v in vars(StudyContrast()).items() if k in contrast} == contrast
    lookahead = model["optimizer"]["init_args"]
    assert (lookahead["k"], lookahead["alpha"]) == (5, 0.5)
    sgd = lookahead["inner"]["init_args"]
    assert sgd == {"lr": 3.0e-3, "momentum": 0.9, "weight_decay": 1.0e-4}
    assert model["text_rate"] == 3.0e-4
    assert trainer["gradient_clip_val"] == 10
    decoder = model["decoder"]["init_args"]
    assert decoder == {"layers": 1, "width": 1024, "heads": 16, "feedforward": 4096, "dropout": 0.1}
    assert model["reports"]["limit"] == 100
    assert model["text"]["init_args"]["pooling"] == "pooler"
    assert given["data"]["shuffle"]["images"] == "independent"
    assert given["data"]["shuffle"]["flip"] == 0.5
    assert len(given["data"]["views"]) == 3
