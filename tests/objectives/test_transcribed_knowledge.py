"""Knowledge contrast against its transcription, on one rank and on two.

As `test_transcribed` does for objectives of pixels alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.modalities.radiomics import FEATURES, radiomics
from lightning_rad.nn.running_z_score import RunningZScore
from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.evidence import with_findings
from tests.objectives.fixed import (
    Snapshot,
    fit_on_this_rank,
    fit_steps,
    random_batches,
)
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.transcribed.knowledge_contrast import (
    Images,
    KnowledgeStep,
    knowledge_steps,
)
from tests.objectives.transcribed.running_scale import RunningScale

STEPS, LR, NONE, MEMORY = 4, 0.1, float("nan"), 100_000


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@dataclass(frozen=True)
class Case:
    """What differs from the settings of the source, in the objective and in its transcription."""

    made: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    size: int = 16
    memory: int | None = None
    empty: bool = False


OTHER = Case(
    made={
        "feedback": {"threshold": 0.3},
        "findings": {"alpha": 0.4, "gamma": 1.0, "weight": 0.6},
        "contrast": {"weight": 0.5, "temperature": 0.2},
    },
    written={
        "threshold": 0.3,
        "alpha": 0.4,
        "gamma": 1.0,
        "focal_weight": 0.6,
        "contrast_weight": 0.5,
        "temperature": 0.2,
    },
)
CASES = {
    "class-activation": Case(),
    "grad-cam": Case(made={"averages": False}),
    "larger-than-the-grid": Case(made={"averages": False}, size=64),
    "from-nothing": Case(empty=True),
    "forgets": Case(memory=20),
    "every-other-step": Case(
        made={"feedback": {"every": 2, "start": 1}}, written={"every": 2, "start": 1}
    ),
    "annotated": Case(
        made={"feedback": {"regions": "annotated"}}, written={"regions": "annotated"}
    ),
    "central": Case(made={"feedback": {"regions": "central"}}, written={"regions": "central"}),
    "other-numbers": OTHER,
    "classifier-alone": Case(made={"contrast": {"weight": 0.0}}, written={"contrast_weight": 0.0}),
}


def knowledge_batches(size: int) -> list[ViewBatch]:
    """Rank 0 of two knows nothing at the second step, nobody at the third, which has no boxes.

    Rows: 0 and 4 have boxes of two findings, 1 one of a single pixel, 2 a box without area, 5 one
    reaching out of the view; 6 is flat, and so is its heat.
    """
    side = size / 16
    batches = with_findings(random_batches(STEPS, views=1, size=size), boxed=())
    for number, batch in enumerate(batches):
        assert batch.findings is not None
        batch.views[:, 6] = 0.5
        labels, boxes, finding = (
            batch.findings.labels[0],
            batch.findings.boxes[0],
            batch.findings.finding[0],
        )
        if number == 1:
            labels[:4] = NONE
        if number == 2:
            labels[:] = NONE
            continue
        for row in (0, 4):
            boxes[row] = torch.tensor([[2, 3, 8, 9], [5, 5, 14, 15]]) * side
            finding[row] = torch.tensor([(row + number) % 3, (row + number + 1) % 3])
        boxes[1, 0] = torch.tensor([4, 4, 5, 5])
        boxes[2, 0] = torch.tensor([4, 4, 4, 9]) * side
        boxes[5, 0] = torch.tensor([9, 1, 16, 7]) * side
        finding[[1, 2, 5], 0] = torch.tensor([0, 1, 2])
    return batches


def knowledge(name: str) -> KnowledgeContrast:
    case = CASES[name]
    objective = knowledge_contrast(**deepcopy(case.made))
    if case.empty or case.memory is not None:
        memory = case.memory or MEMORY
        objective.z_score = RunningZScore(len(FEATURES), memory=memory).double()
    return objective


PLAIN = {
    "encoder.layers.": "map.",
    "encoder.head.": "head.",
    "classifier.linear.": "classifier.",
    "projector.layers.0.": "projector.",
    "radiomic_encoder.layers.": "radiomic.",
    "radiomic_projector.layers.0.": "radiomic_projector.",
}


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an objective but for its running scale, by the names of the transcription."""
    renamed = {}
    for name, value in state.items():
        if not name.startswith("z_score."):
            (start,) = (start for start in PLAIN if name.startswith(start))
            renamed[PLAIN[start] + name.removeprefix(start)] = value
    return renamed


def networks(objective: KnowledgeContrast, name: str) -> nn.ModuleDict:
    nets = nn.ModuleDict(
        {
            "map": nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.GELU()),
            "head": nn.Identity() if CASES[name].made.get("averages", True) else nn.LayerNorm(8),
            "classifier": nn.Linear(8, 3),
        }
    )
    if name != "classifier-alone":
        nets["projector"] = nn.Linear(8, 8, bias=False)
        nets["radiomic"] = nn.Sequential(nn.Linear(102, 16), nn.GELU(), nn.Linear(16, 16))
        nets["radiomic_projector"] = nn.Linear(16, 8, bias=False)
    nets.double().load_state_dict(plain(objective.state_dict()))
    return nets


def written_out(batch: ViewBatch) -> Images:
    assert batch.findings is not None
    assert batch.greys is not None
    evidence, boxes = batch.findings, []
    for boxes_K4, finding_K in zip(evidence.boxes[0], evidence.finding[0], strict=True):
        pairs = zip(boxes_K4.tolist(), finding_K.tolist(), strict=True)
        boxes.append([(tuple(box), finding) for box, finding in pairs if finding >= 0])
    return Images(batch.views[0], batch.greys[0, :, 0], evidence.labels[0].tolist(), boxes)


def measured(greys_HW: Tensor, inside_HW: Tensor) -> Tensor:
    return radiomics(greys_HW[None], inside_HW[None])[0]


def knowledge_written(objective: KnowledgeContrast, name: str) -> list[KnowledgeStep]:
    case = CASES[name]
    state = objective.state_dict()
    nothing = torch.zeros(len(FEATURES))
    numbers = [state.get(f"z_score.{key}", nothing).tolist() for key in ("count", "mean", "spread")]
    return knowledge_steps(
        networks(objective, name),
        [written_out(batch) for batch in knowledge_batches(case.size)],
        measure=measured,
        scale=RunningScale(*numbers, memory=case.memory or MEMORY),
        lr=LR,
        **case.written,
    )


def compare_knowledge(step: Snapshot, wanted: KnowledgeStep) -> None:
    same(plain(step.state), wanted.student)
    if "contrast" in wanted.terms:
        same(step.under("z_score"), wanted.scale)
    else:
        assert not step.under("z_score")


def logged(wanted: KnowledgeStep) -> dict[str, float]:
    """Of a step without regions the contrast, 0 where it is written out, is not logged."""
    terms = wanted.terms if wanted.shares else {"focal": wanted.terms["focal"]}
    return terms | {f"region_{key}": share for key, share in wanted.shares.items()}


@pytest.mark.parametrize("name", CASES)
def test_every_step_of_knowledge_contrast_is_that_of_the_source_written_out(name: str) -> None:
    objective = knowledge(name)
    expected = knowledge_written(objective, name)
    steps = fit_steps(objective, knowledge_batches(CASES[name].size))
    assert len(steps) == len(expected) == STEPS
    for step, wanted in zip(steps, expected, strict=True):
        compare_knowledge(step, wanted)
        for key, value in logged(wanted).items():
            same(step.terms[key], value)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_take_the_steps_of_knowledge_contrast_on_the_whole_batch(name: str) -> None:
    expected = knowledge_written(knowledge(name), name)
    batches = knowledge_batches(CASES[name].size)
    ranks = run_on_ranks(fit_on_this_rank, 2, partial(knowledge, name), batches)
    for steps in ranks:
        assert len(steps) == STEPS
        for step, wanted in zip(steps, expected, strict=True):
            compare_knowledge(step, wanted)
    for both, wanted in zip(zip(*ranks, strict=True), expected, strict=True):
        for key, value in logged(wanted).items():
            same(sum(step.terms[key] for step in both) / 2, value)


def test_the_batches_have_regions_of_every_origin_and_the_scale_its_limits() -> None:
    """So that the comparisons above mean something."""
    expected = knowledge_written(knowledge("class-activation"), "class-activation")
    for share in ("annotated", "heat", "fallback", "nan"):
        assert 0 < sum(step.shares[share] for step in expected) < STEPS
    other = knowledge_written(knowledge("grad-cam"), "grad-cam")
    assert expected[0].terms["focal"] != other[0].terms["focal"]
    assert expected[2].terms["focal"] == 0
