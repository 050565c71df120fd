from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_rad.evaluation.random_init import RandomInit
from lightning_rad.evaluation.rows import Rows
from tests.evaluation.test_assessment import ASSESSOR, _rows


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.linear(x))
        return out

    def fresh(self, seed: int) -> _Encoder:
        torch.manual_seed(seed)
        return _Encoder()


def _parts(encoder: _Encoder) -> tuple[Any, Any]:
    plugin = SimpleNamespace(convert_module=lambda m: m, forward_context=nullcontext)
    module = SimpleNamespace(encoder=encoder, device=torch.device("cpu"))
    return SimpleNamespace(precision_plugin=plugin), module


def _with_features(init: RandomInit, trainer: Any, rows: Rows) -> Rows:
    return replace(rows, random=init.features(trainer, rows.features))


def test_the_encoder_is_new_seeded_silent_and_moves_no_random_state() -> None:
    trainer, module = _parts(_Encoder())
    x = _rows(1).features
    state = torch.get_rng_state()
    found = []
    for seed in (3, 3, 4):
        init = RandomInit(seed, wanted=True)
        assert init.begin(trainer, module)
        found.append(init.features(trainer, x))
    assert torch.equal(state, torch.get_rng_state())
    first, again, other = found
    assert first is not None
    assert again is not None
    assert other is not None
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_it_is_read_once_and_again_when_the_images_change() -> None:
    trainer, module = _parts(_Encoder())
    init = RandomInit(0, wanted=True)
    fit, score = _rows(1), _rows(2)
    assert init.begin(trainer, module)
    rows = _with_features(init, trainer, fit), _with_features(init, trainer, score)
    reading = init.read(ASSESSOR, *rows, here=True)
    assert reading is not None
    assert not init.begin(trainer, module)
    assert init.features(trainer, fit.features) is None
    assert init.read(ASSESSOR, fit, score, here=True) is reading
    moved = replace(score, image=score.image + 1)
    assert not init.begin(trainer, module)
    assert init.read(ASSESSOR, fit, moved, here=True) is None  # never a stale number
    assert init.begin(trainer, module)


def test_a_rank_that_does_not_compute_still_knows_that_it_was_read() -> None:
    trainer, module = _parts(_Encoder())
    init = RandomInit(0, wanted=True)
    assert init.begin(trainer, module)
    rows = [_with_features(init, trainer, _rows(s)) for s in (1, 2)]
    assert init.read(ASSESSOR, *rows, here=False) is None
    assert not init.begin(trainer, module)


def test_an_unwanted_one_does_nothing() -> None:
    trainer, module = _parts(_Encoder())
    init = RandomInit(0, wanted=False)
    assert not init.begin(trainer, module)
    assert init.read(ASSESSOR, _rows(1), _rows(2), here=True) is None
