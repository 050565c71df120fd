"""Captioning: the surprise at each token but the first, padding never, unknown words as words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_rad.losses.captioning import captioning, counted

LENGTHS = (6, 2, 4)
WORDS = 9


def tokens(width: int = 6) -> Tensor:
    """Three reports of these lengths; number 0, an unknown word, is in each."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.full((len(LENGTHS), width), -1)
    for row, length in zip(rows, LENGTHS, strict=True):
        row[:length] = torch.randint(0, WORDS, (length,), generator=generator)
        row[1] = 0
    return rows


def logits(width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, width, WORDS, generator=generator, dtype=torch.float64)


def test_it_is_the_sum_of_each_next_tokens_surprise() -> None:
    want = []
    for row, scores in zip(tokens().tolist(), logits().tolist(), strict=True):
        total = 0.0
        for place in range(1, len(row)):
            if row[place] == -1:
                break
            before = scores[place - 1]
            total -= before[row[place]] - math.log(sum(math.exp(s) for s in before))
        want.append(total)
    assert captioning(logits(), tokens()).tolist() == pytest.approx(want, rel=1e-12)
    assert counted(tokens()).tolist() == [length - 1 for length in LENGTHS]


def test_refers_f_padding_adds_nothing_to_loss_count_or_gradient() -> None:
    """Whatever the logits there are, and however far it goes."""
    narrow = logits().requires_grad_()
    with torch.no_grad():
        wide = torch.cat([logits(), torch.full((3, 5, WORDS), 1e6)], 1)
    wide.requires_grad_()
    a, b = captioning(narrow, tokens()), captioning(wide, tokens(11))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert torch.equal(counted(tokens()), counted(tokens(11)))
    (a.sum() + b.sum()).backward()
    assert narrow.grad is not None
    assert wide.grad is not None
    assert torch.equal(narrow.grad, wide.grad[:, :6])
    for row, length in zip(wide.grad, LENGTHS, strict=True):
        assert row[: length - 1].abs().sum(1).min() > 1e-3  # unknown words count
        assert not row[length - 1 :].any()


def test_logits_of_a_uniform_guess_cost_the_logarithm_of_the_vocabulary_a_token() -> None:
    nats = captioning(torch.zeros(3, 6, WORDS), tokens())
    want = [math.log(WORDS) * (length - 1) for length in LENGTHS]
    assert nats.tolist() == pytest.approx(want, rel=1e-6)


def test_low_precision_logits_are_summed_in_float32_even_under_autocast() -> None:
    low = logits().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = captioning(low, tokens())
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, captioning(low.double(), tokens()).float())
    assert captioning(logits(), tokens()).dtype == torch.float64


def test_gradient_is_that_of_its_numerical_derivative() -> None:
    torch.autograd.gradcheck(lambda x: captioning(x, tokens()), logits().requires_grad_())
