"""The transcription of image-report contrast on its own, by cases that can be worked out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from tests.objectives.test_transcribed_refers import (
    DISTINCT,
    ROWS,
    TEXTS,
    WIDTH,
    FirstWord,
    Scaled,
    noise,
    same,
    told_apart,
    unit_pixels,
)
from tests.objectives.transcribed.image_report import ImageReportStep, image_report_steps


def image_report(steps: int = 1, views: int = 1, **changes: Any) -> list[ImageReportStep]:
    settings: dict[str, Any] = {"texts": [TEXTS] * steps, "hashes": [DISTINCT] * steps, "lr": 0.1}
    settings |= {"form": "clip", "temperature": 0.1, "learned": True}
    batches = changes.pop("batches", [unit_pixels(views)] * steps)
    return image_report_steps(Scaled(), FirstWord(), batches, **(settings | changes))


def test_clip_is_the_mean_of_two_cross_entropies() -> None:
    pixels = noise(1, ROWS, 1, 1, WIDTH)
    step = image_report(batches=[pixels])[0]
    units = nn.functional.normalize(pixels.view(ROWS, WIDTH), dim=1)
    logits = 10 * units[:, :ROWS]  # text j is the j-th unit vector
    places = torch.arange(ROWS)
    both = [float(cross_entropy(logits, places)), float(cross_entropy(logits.T, places))]
    assert list(step.parts.values()) == pytest.approx([*both, 0.1], abs=1e-12)
    assert step.terms["contrast"] == pytest.approx(sum(both) / 2, abs=1e-12)
    convirt = image_report(batches=[pixels], form="convirt", learned=False)[0]
    wanted = 0.75 * both[0] + 0.25 * both[1]
    assert convirt.terms["contrast"] == pytest.approx(wanted, abs=1e-12)
    assert not convirt.learned


def test_siglip_is_a_binary_cross_entropy_of_every_pair() -> None:
    pixels = noise(1, ROWS, 1, 1, WIDTH)
    step = image_report(batches=[pixels], form="siglip", largest_scale=None)[0]
    units = nn.functional.normalize(pixels.view(ROWS, WIDTH), dim=1)
    logits = 10 * units[:, :ROWS] - 10
    wanted = binary_cross_entropy_with_logits(
        logits, torch.eye(ROWS).double(), reduction="sum"
    ) / len(logits)
    assert step.terms["contrast"] == pytest.approx(float(wanted), abs=1e-12)


@pytest.mark.parametrize("form", ["clip", "convirt", "siglip"])
def test_pairs_of_one_text_do_not_count_unless_faithful(form: Any) -> None:
    """Bias 3: a pair at cosine 0 costs softplus(3)."""

    def loss(**changes: Any) -> float:
        got: float = image_report(form=form, bias=3.0, **changes)[0].terms["contrast"]
        return got

    def wanted(rivals: int) -> float:
        if form == "siglip":
            costs = softplus(torch.tensor([-13.0, 3.0]).double()).tolist()
            return float(costs[0] + rivals * costs[1])
        return told_apart(rivals)

    assert loss() == pytest.approx(wanted(3), abs=1e-12)
    one, two = torch.full((ROWS,), 9), torch.tensor([9, 9, 8, 8])
    assert loss(hashes=[one]) == pytest.approx(wanted(0), abs=1e-12)
    assert loss(hashes=[two]) == pytest.approx(wanted(2), abs=1e-12)
    assert loss(hashes=[one], faithful=True) == loss()


def test_views_of_a_unit_are_each_others_positives() -> None:
    """Two equal views: twice the sum in a denominator, twice the pairs of an image."""
    assert image_report(views=2)[0].terms["contrast"] == pytest.approx(
        told_apart(3) + math.log(2), abs=1e-12
    )
    twice = image_report(views=2, form="siglip")[0].terms["contrast"]
    assert twice == pytest.approx(2 * image_report(form="siglip")[0].terms["contrast"], abs=1e-12)


def test_scale_and_bias_follow_their_derivatives() -> None:
    """Pairs at 1 and 0 with p, q their sigmoids: dL/dt' = -t (1 - p), dL/db = p - 1 + 3 q."""
    step = image_report(form="siglip", bias=-9.0, largest_scale=None)[0]
    p, q = (1 / (1 + math.exp(-logit)) for logit in (1.0, -9.0))
    assert float(step.learned["log_scale"]) == pytest.approx(math.log(10) + 0.1 * 10 * (1 - p))
    assert float(step.learned["bias"]) == pytest.approx(-9 - 0.1 * (p - 1 + 3 * q))


def test_a_learned_scale_is_held_at_a_hundred() -> None:
    """Every image is closest to its own text, if barely: the scale wants to rise."""
    pixels = unit_pixels(1) + 0.99 * unit_pixels(1).roll(1, dims=-1)
    settings: dict[str, Any] = {"batches": [pixels] * 2, "temperature": 1 / 99.9}
    free = image_report(2, **settings, largest_scale=None)
    assert float(free[0].learned["log_scale"]) > math.log(100)
    after = image_report(2, **settings)
    assert [float(s.learned["log_scale"]) for s in after] == [math.log(100)] * 2
    assert after[1].parts["temperature"] == pytest.approx(0.01, rel=1e-12)
    read = image_report(2, **settings, held="in forward")
    same(read[0].learned, free[0].learned)
    same(read[1].learned, read[0].learned)  # out of bounds it has no gradient
    assert read[1].parts["temperature"] == pytest.approx(0.01, rel=1e-12)
