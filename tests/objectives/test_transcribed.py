"""The transcriptions on their own: what their sources imply, found without any objective."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tests.objectives.fixed import random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.transcribed.byol import byol_steps
from tests.objectives.transcribed.c2l import c2l_steps
from tests.objectives.transcribed.micle import micle_steps
from tests.objectives.transcribed.moco import moco_steps
from tests.objectives.transcribed.moco_v3 import moco_v3_steps
from tests.objectives.transcribed.record import Step

BATCHES = [batch.views for batch in random_batches(4)]
QUEUE_KD = normalize(torch.randn(24, 8, generator=torch.Generator().manual_seed(2)).double(), dim=1)


def student(norm: Norm = "none") -> nn.Module:
    torch.manual_seed(0)
    return SmallEncoder(norm).double()


def moco(**changes: Any) -> list[Step]:
    settings = {"queue_KD": QUEUE_KD, "temperature": 0.2, "momentum": 0.9, "lr": 0.1}
    return moco_steps(student(), BATCHES, **(settings | changes))


def moco_v3(momentum: float) -> list[Step]:
    predictor = nn.Linear(8, 8).double()
    settings = {"temperature": 0.2, "momentum": momentum, "total": 4, "lr": 0.1}
    return moco_v3_steps(student(), predictor, BATCHES, **settings)


def byol(momentum: float) -> list[Step]:
    predictor = nn.Linear(8, 8).double()
    return byol_steps(student(), predictor, BATCHES, momentum=momentum, total=4, lr=0.1)


def c2l(**changes: Any) -> list[Step]:
    settings = {"lambdas": [0.7] * 4, "permutations": [torch.arange(8).flip(0)] * 4}
    settings |= {"queue_KD": QUEUE_KD, "temperature": 0.2, "momentum": 0.9, "lr": 0.1}
    return c2l_steps(student(), BATCHES, **(settings | changes))


def micle(patients_B: Tensor, faithful: bool) -> list[Step]:
    patients = [patients_B] * 4
    settings = {"patients": patients, "faithful": faithful, "temperature": 0.2, "lr": 0.1}
    return micle_steps(student(), BATCHES, **settings)


def keys(views: Tensor) -> Tensor:
    with torch.no_grad():
        return normalize(student()(views), dim=1)


@pytest.mark.parametrize("method", [moco, moco_v3, byol, c2l])
def test_a_twin_of_momentum_one_stays_where_it_began(method: Any) -> None:
    for step in method(momentum=1.0):
        for name, value in student().state_dict().items():
            torch.testing.assert_close(step.twin[name], value, rtol=0, atol=0)
            assert not torch.equal(step.student[name], value)


@pytest.mark.parametrize("method", [moco, c2l])
def test_a_twin_of_momentum_zero_is_the_student(method: Any) -> None:
    for step in method(momentum=0.0):
        torch.testing.assert_close(step.twin, step.student, rtol=0, atol=1e-15)


def test_a_scheduled_twin_ends_at_rest() -> None:
    """BYOL's step k moves by 1 - tau(k), MoCo v3 already by that of k + 1: the last not at all."""
    *_, before, last = moco_v3(momentum=0.0)
    torch.testing.assert_close(last.twin, before.twin, rtol=0, atol=1e-15)
    first, *_, before, last = byol(momentum=0.0)
    torch.testing.assert_close(first.twin, first.student, rtol=0, atol=1e-15)
    assert not torch.allclose(last.twin["layers.0.weight"], before.twin["layers.0.weight"])


def test_the_queue_of_moco_is_the_last_keys() -> None:
    """The twin stands still here, so its keys can be computed afterwards."""
    steps = moco(momentum=1.0)
    assert [step.pointer for step in steps] == [8, 16, 0, 8]
    wanted = torch.cat([keys(BATCHES[i][1]) for i in (3, 1, 2)])
    torch.testing.assert_close(steps[-1].queue_KD, wanted)


def test_the_queue_of_c2l_takes_three_batches_of_keys_a_step() -> None:
    """With lambda 1 nothing is mixed and the three are the same."""
    steps = c2l(momentum=1.0, lambdas=[1.0] * 4, queue_KD=torch.cat([QUEUE_KD, QUEUE_KD[:8]]))
    assert [step.pointer for step in steps] == [24, 16, 8, 0]
    k = [keys(views[1]) for views in BATCHES]
    torch.testing.assert_close(steps[-1].queue_KD, torch.cat([k[2], k[3], k[3], k[3]]))


def test_c2l_weighs_the_greater_share_of_a_mixture() -> None:
    assert c2l(lambdas=[0.3] * 4)[-1].terms == pytest.approx(c2l()[-1].terms, rel=1e-12)


def test_nce_knows_its_constant_from_the_first_call() -> None:
    """A query orthogonal to all keys has exp(0) everywhere: Z is n, every score 1 / n."""
    scores = c2l(nce_data=200, temperature=1e9)[0]
    positive, negative = 1 / (1 + 24), 24 / (1 + 24)
    wanted = -(torch.tensor(positive).log() + 24 * torch.tensor(negative).log()) / 3
    for term in scores.terms.values():
        assert term == pytest.approx(float(wanted), rel=1e-4)


def test_only_known_patients_leave_the_denominator() -> None:
    nobody, everyone = torch.zeros(8, dtype=torch.int64), torch.full((8,), 5)
    assert micle(nobody, False)[-1].terms == micle(nobody, True)[-1].terms
    assert micle(everyone, True)[-1].terms == micle(nobody, True)[-1].terms
    assert micle(everyone, False)[-1].terms == {"nt_xent": 0.0}  # nothing but the positive is left
    some = torch.tensor([5, 5, 0, 0, 1, 2, 3, 4])
    assert 0 < micle(some, False)[0].terms["nt_xent"] < micle(some, True)[0].terms["nt_xent"]
