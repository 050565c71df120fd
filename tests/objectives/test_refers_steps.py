"""REFERS against the straight-line transcription of its source, step by step, in float64.

Both start from the same numbers and see the same batches, by SGD and by Lookahead around it; after
each step both terms, all weights and the slow weights agree to 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.nn.report_decoder import ReportDecoder
from lightning_rad.objectives.refers import REFERS, StudyContrast
from lightning_rad.optim.lookahead import Lookahead
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import (
    Snapshot,
    fit_on_this_rank,
    fit_steps,
    random_batches,
    with_reports,
)
from tests.objectives.test_refers import LIMIT, ROWS, SAME, refers, report_of
from tests.objectives.transcribed.refers import RefersStep, refers_steps

Weights = dict[str, Tensor]

STEPS, HEADS, TEMPERATURE, LR, TEXT_LR = 4, 2, 0.2, 0.1, 0.03
SLOW = (2, 0.3)
"""k and alpha of Lookahead: two meetings in four steps, and not at half the way."""

NAMES = {
    "fusion.heads.0": "fusion.fc1",
    "fusion.heads.1": "fusion.fc2",
    "fusion.heads.2": "fusion.fc3",
    "decoder.words": "decoder.embedding.words",
    "decoder.positions": "decoder.embedding.positions",
    "decoder.norm": "decoder.embedding.layer_norm",
    "decoder.projection": "decoder.visual_projection",
    "decoder.layers.layers": "decoder.transformer.layers",
    "decoder.bias": "decoder.output.bias",
}
"""Where a name here and in the transcription differ."""

CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "lookahead": {"lookahead": SLOW, "momentum": 0.9, "clip": 1.0, "text_lr": TEXT_LR},
    "faithful_code": {"faithful_code": True, "text_lr": TEXT_LR},
    "faithful_code-lookahead": {"faithful_code": True, "lookahead": SLOW, "clip": 1.0},
    "faithful": {"faithful": True},
    "half": {"image_share": 0.5, "momentum": 0.9},
}
"""By name: what the transcription is told beside what it is told in all of them."""


def theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict by the names of the transcription."""
    named = {}
    for key, value in state.items():
        start = next((name for name in NAMES if f"{key}.".startswith(f"{name}.")), "")
        named[NAMES.get(start, "") + key.removeprefix(start)] = value
    return named


def batches() -> list[ViewBatch]:
    return with_reports(random_batches(STEPS, rows=ROWS, views=3), limit=LIMIT, same=SAME)


def made(case: str) -> REFERS:
    """The objective as it starts; two layers of decoder."""
    how = CASES[case]
    contrast = StudyContrast(
        temperature=TEMPERATURE,
        image_share=how.get("image_share", 0.75),
        faithful_code=how.get("faithful_code", False),
        faithful=how.get("faithful", False),
    )

    def optimizer(groups: Any) -> torch.optim.Optimizer:
        inner = partial(torch.optim.SGD, lr=LR, momentum=how.get("momentum", 0.0))
        if "lookahead" not in how:
            return inner(groups)
        k, alpha = how["lookahead"]
        return Lookahead(groups, inner=inner, k=k, alpha=alpha)

    decoder = partial(ReportDecoder, width=8, layers=2, heads=HEADS, feedforward=12, dropout=0.0)
    return refers(
        contrast=contrast, optimizer=optimizer, text_rate=how.get("text_lr"), decoder=decoder
    )


def expected(case: str) -> list[RefersStep]:
    objective, reports = made(case), [report_of(batch) for batch in batches()]
    apart = ("encoder.", "text.")
    weights = {k: v for k, v in theirs(objective.state_dict()).items() if not k.startswith(apart)}
    return refers_steps(
        objective.encoder,
        objective.text,
        weights,
        [batch.views for batch in batches()],
        captions=[report.tokens["caption"] for report in reports],
        texts=[report.tokens["text"] for report in reports],
        hashes=[report.hash for report in reports],
        heads=HEADS,
        temperature=TEMPERATURE,
        lr=LR,
        **CASES[case],
    )


def took(case: str, fit: Callable[..., list[Snapshot]]) -> list[tuple[Snapshot, Weights]]:
    """Each step, and the slow weights after it by the names of the transcription."""
    objective, slow = made(case), []

    def look(taken: bool) -> None:
        assert taken
        state = objective.trainer.optimizers[0].state
        named = {n: state[p] for n, p in objective.named_parameters()}
        slow.append(theirs({n: s["slow"].clone() for n, s in named.items() if "slow" in s}))

    objective.after_step = look  # type: ignore[method-assign]
    steps = fit(objective, batches(), unit="study", gradient_clip_val=CASES[case].get("clip"))
    return list(zip(steps, slow, strict=True))


def on_this_rank(case: str) -> list[tuple[Snapshot, Weights]]:
    return took(
        case, lambda objective, *given, **how: fit_on_this_rank(lambda: objective, *given, **how)
    )


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def compare(step: Snapshot, slow: Weights, wanted: RefersStep) -> None:
    """What the transcription has, the objective must have, and no more."""
    same(theirs(step.state), wanted.student)
    same(slow, wanted.slow)


@pytest.mark.parametrize("case", CASES)
def test_every_step_is_that_of_the_source_written_out(case: str) -> None:
    steps, wanted = took(case, fit_steps), expected(case)
    assert len(steps) == len(wanted) == STEPS
    for (step, slow), theirs_ in zip(steps, wanted, strict=True):
        same(step.terms, theirs_.terms)
        compare(step, slow, theirs_)
        assert bool(slow) == ("lookahead" in CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_take_the_steps_of_the_source_on_the_whole_batch(case: str) -> None:
    wanted = expected(case)
    by_rank = run_on_ranks(on_this_rank, 2, case)
    for steps in by_rank:
        assert len(steps) == STEPS
        for (step, slow), theirs_ in zip(steps, wanted, strict=True):
            compare(step, slow, theirs_)
    for number, theirs_ in enumerate(wanted):
        terms = [steps[number][0].terms for steps in by_rank]
        same({n: sum(t[n] for t in terms) / 2 for n in terms[0]}, theirs_.terms)


def test_the_steps_of_the_cases_differ() -> None:
    """What the comparison must tell apart, by a hundred times its bound at least."""
    ends = {case: expected(case)[-1].student for case in CASES}
    start = theirs(made("sgd").state_dict())
    for case, end in ends.items():
        assert end.keys() == start.keys()
        for name, value in end.items():
            assert float((value - start[name]).abs().max()) > 1e-8, (case, name)
        for other in CASES:
            far = max(float((value - ends[other][n]).abs().max()) for n, value in end.items())
            assert (far > 1e-8) == (other != case), (case, other)
