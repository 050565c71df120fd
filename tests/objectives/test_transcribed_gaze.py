"""The gaze predictor against its transcription, on one rank and on two.

As `test_transcribed` does for objectives of pixels alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.objectives.gaze_predictor import GazePredictor
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches, with_gaze
from tests.objectives.test_gaze_predictor import predictor
from tests.objectives.transcribed.gaze_predictor import gaze_steps
from tests.objectives.transcribed.record import Step

STEPS, LR = 4, 0.1


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


class Scores(nn.Module):
    """A predictor as it says of itself: patches with the whole image's feature, then a decoder."""

    def __init__(self, objective: GazePredictor) -> None:
        super().__init__()
        self.encoder, self.decoder = objective.encoder, objective.decoder

    def forward(self, images: Tensor) -> Tensor:
        features_BD, tokens_BPD = self.encoder(images, tokens=True)
        scores: Tensor = self.decoder(tokens_BPD + features_BD[:, None])
        return scores


def gaze_batches() -> list[ViewBatch]:
    """Nobody looked at row 2; in the second batch at none of rank 0; in the third at none at all.

    In the last, at one view of a row and not at the other.
    """
    batches = []
    for number, batch in enumerate(random_batches(STEPS)):
        blank = [[2], [0, 1, 2, 3, 6], list(range(8)), [2]][number]
        (made,) = with_gaze([batch], without=blank, seed=3 + number)
        assert made.gaze is not None
        map_ = made.gaze.map.clone()
        if number == 3:
            map_[1, 5] = 0
        batches.append(replace(made, gaze=replace(made.gaze, map=map_)))
    return batches


def gaze_written(objective: GazePredictor, weight: float) -> list[Step]:
    batches = gaze_batches()
    return gaze_steps(
        Scores(objective),
        [batch.views for batch in batches],
        maps=[batch.gaze.map for batch in batches if batch.gaze is not None],
        correlation=weight,
        lr=LR,
    )


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_every_step_of_the_gaze_predictor_is_its_own_written_out(weight: float) -> None:
    objective = predictor(correlation=weight)
    expected = gaze_written(objective, weight)
    steps = fit_steps(objective, gaze_batches())
    assert len(steps) == len(expected) == STEPS
    for step, wanted in zip(steps, expected, strict=True):
        same(step.state, wanted.student)
        same({key: step.terms[key] for key in wanted.terms}, wanted.terms)
    same(expected[2].student, expected[1].student)  # where nobody looked nothing is learned


def test_two_ranks_take_the_steps_of_the_gaze_predictor_on_the_whole_batch() -> None:
    expected = gaze_written(predictor(), 1.0)
    ranks = run_on_ranks(fit_on_this_rank, 2, predictor, gaze_batches())
    for steps in ranks:
        assert len(steps) == STEPS
        for step, wanted in zip(steps, expected, strict=True):
            same(step.state, wanted.student)
    for both, wanted in zip(zip(*ranks, strict=True), expected, strict=True):
        for key, value in wanted.terms.items():
            same(sum(step.terms[key] for step in both) / 2, value)
